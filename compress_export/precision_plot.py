"""The picture of `--precision auto`: accuracy against latency and size."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from compress_export.precision_choice import Candidate

PICTURE = "precision.png"


def draw_choice(candidates: Sequence[Candidate], metric: str, path: Path) -> None:
    """Draw accuracy against latency and against size; files that miss a budget are hollow.

    Args:
        metric: name of the score, for people.
        path: PNG to write.
    """
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(1, 2, figsize=(10, 4.2), sharey=True, layout="constrained")
    colours = {"onnx": "tab:blue", "tflite": "tab:orange"}
    for candidate in candidates:
        score = candidate.validation_score
        for axes, value in zip(
            panels, (candidate.latency_p50_ms, candidate.size_bytes / 2**10), strict=True
        ):
            if score is None or value is None:
                continue
            colour = colours[candidate.format]
            face = "none" if candidate.missed else colour
            size = 90 if candidate.shipped else 36
            marker = "*" if candidate.shipped else "o"
            axes.scatter(
                value, 100 * score, size, edgecolors=colour, facecolors=face, marker=marker
            )
            axes.annotate(
                candidate.precision, (value, 100 * score), xytext=(5, 4),
                textcoords="offset points", fontsize=8, color=colour,
            )  # fmt: skip
    for name, colour in colours.items():
        panels[0].scatter([], [], color=colour, label=name)
    panels[0].scatter([], [], 90, color="grey", marker="*", label="shipped")
    panels[0].scatter([], [], facecolors="none", edgecolors="grey", label="misses a budget")
    panels[0].legend()
    panels[0].set(xlabel="p50 latency, ms", ylabel=f"validation {metric}, %")
    panels[1].set(xlabel="size, KiB")
    figure.savefig(path, dpi=120)
    plt.close(figure)
