"""The picture of first aid: what each layer costs, and what accuracy costs in bytes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from compress_export.first_aid_figures import FirstAid

FIRST_AID_PICTURE = "first_aid.png"

_MOST_LAYERS = 25


def draw_first_aid(entries: Sequence[FirstAid], metric: str, path: Path) -> None:
    """Draw losses by layer, and the sets of layers left in float by score and bytes.

    Args:
        entries: with layers and mixtures, of one format each: a row of the picture.
        metric: name of the score, for people.
        path: PNG to write.
    """
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    bars = (min(len(figures.layers), _MOST_LAYERS) for figures in entries)
    heights = [max(3.5, 1.2 + 0.25 * count) for count in bars]
    figure, rows = plt.subplots(
        len(entries),
        2,
        figsize=(11, sum(heights)),
        height_ratios=heights,
        layout="constrained",
        squeeze=False,
    )
    for (left, right), figures in zip(rows, entries, strict=True):
        _draw_layers(left, figures)
        _draw_mixtures(right, figures, metric)
        for panel in (left, right):
            panel.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _draw_layers(panel: Axes, figures: FirstAid) -> None:
    costs = sorted(figures.layers, key=lambda cost: cost.loss_saved)[-_MOST_LAYERS:]
    bars = panel.barh(range(len(costs)), [cost.loss_saved for cost in costs], color="tab:blue")
    for bar, cost in zip(bars, costs, strict=True):
        bar.set_alpha(0.9 if cost.layer in figures.float_layers else 0.4)
    panel.set_yticks(range(len(costs)), [cost.layer for cost in costs], fontsize=8)
    title = f"{figures.format}: loss saved by one layer in float (dark: stays float)"
    panel.set_title(title, fontsize=10)


def _draw_mixtures(panel: Axes, figures: FirstAid, metric: str) -> None:
    tried = sorted(figures.mixtures, key=lambda mixture: mixture.extra_bytes)
    kibs = [mixture.extra_bytes / 2**10 for mixture in tried]
    scores = [100 * mixture.validation_score for mixture in tried]
    panel.plot(kibs, scores, "o", color="tab:blue", alpha=0.5)
    for kib, score, mixture in zip(kibs, scores, tried, strict=True):
        label = f"{len(mixture.layers)}"
        panel.annotate(label, (kib, score), textcoords="offset points", xytext=(4, 4), fontsize=8)
        if mixture.kept:
            panel.plot([kib], [score], "o", color="tab:red", label="kept")
    wanted, floats = 100 * figures.wanted_score, 100 * figures.validation_score_float
    panel.axhline(wanted, color="tab:gray", linestyle="--", label="accuracy budget")
    panel.axhline(floats, color="tab:gray", linestyle=":", label="float network")
    panel.set_xlabel("more bytes than with all layers rounded, KiB")
    title = f"{figures.format}: validation {metric}, %, by number of layers in float"
    panel.set_title(title, fontsize=10)
    panel.legend(fontsize=8)
