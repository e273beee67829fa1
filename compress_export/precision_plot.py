"""The picture of `--precision auto`: accuracy, latency and size of all candidates."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from compress_export.precision_choice import Candidate

PICTURE = "precision.png"

_COLOURS = {"onnx": "tab:blue", "tflite": "tab:orange"}


def draw_choice(candidates: Sequence[Candidate], metric: str, path: Path) -> None:
    """Draw a row for each candidate: accuracy, latency and size side by side.

    Args:
        metric: name of the score, for people.
        path: PNG to write.
    """
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    rows = sorted(candidates, key=lambda c: (c.format, c.size_bytes), reverse=True)
    scores = [None if c.validation_score is None else 100 * c.validation_score for c in rows]
    sizes = [c.size_bytes / 2**10 for c in rows]
    panels: tuple[tuple[str, str, Sequence[float | None]], ...] = (
        (f"validation {metric}, %", ".2f", scores),
        ("p50 latency, ms", ".3g", [c.latency_p50_ms for c in rows]),
        ("size, KiB", ",.0f", sizes),
    )
    height = 1.2 + 0.3 * len(rows)
    figure, axes = plt.subplots(1, 3, figsize=(10, height), sharey=True, layout="constrained")
    for panel, (title, form, values) in zip(axes, panels, strict=True):
        bars = panel.barh(
            range(len(rows)),
            [value or 0 for value in values],
            color=[_COLOURS[c.format] for c in rows],
            alpha=0.85,
        )
        for bar, candidate in zip(bars, rows, strict=True):
            if candidate.missed:
                bar.set(facecolor="none", edgecolor=_COLOURS[candidate.format], hatch="///")
        texts = ["unknown" if value is None else format(value, form) for value in values]
        panel.bar_label(bars, texts, padding=3, fontsize=8)
        panel.margins(x=0.2)
        panel.set_title(title, fontsize=10)
        panel.spines[["top", "right"]].set_visible(False)
    axes[0].set_yticks(range(len(rows)), [f"{c.precision} {c.format}" for c in rows], fontsize=9)
    for label, candidate in zip(axes[0].get_yticklabels(), rows, strict=True):
        label.set_fontweight("bold" if candidate.shipped else "normal")
    figure.supxlabel("bold: shipped; hatched: misses a budget", fontsize=9)
    figure.savefig(path, dpi=120)
    plt.close(figure)
