"""Pictures of time: to the result, and of a training step on what is left."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.pruning.page.comparison import Comparison, title
from benchmarks.pruning.page.plot_style import BLUE, DARK, LIGHT, MARKERS, OTHERS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from benchmarks.pruning.page.sections import Found


def time_to_result(found: Found) -> Figure:
    """Draw seconds of search and fine-tuning as bars, with the accuracy behind them."""
    from matplotlib import pyplot as plt
    from matplotlib.patches import Patch

    comparisons = found.comparisons
    columns = min(3, len(comparisons))
    rows = -(-len(comparisons) // columns)
    most = max(len(c.entries) for c in comparisons)
    figure, axes = plt.subplots(
        rows, columns, figsize=(1 + 3.6 * columns, rows * (1.05 + 0.21 * most)),
        layout="constrained", squeeze=False,
    )  # fmt: skip
    for axis in axes.flat[len(comparisons) :]:
        axis.axis("off")
    for axis, c in zip(axes.flat, comparisons, strict=False):
        _time_bars(axis, c)
    key = [Patch(color=DARK, label="search"), Patch(color=LIGHT, label="fine-tuning")]
    figure.legend(handles=key, loc="outside upper right", ncols=2)
    return figure


def _time_bars(axis: Axes, c: Comparison) -> None:
    key = "cpu_seconds" if all(e.values("cpu_seconds") for e in c.entries) else "seconds"
    shown = sorted(c.entries, key=lambda e: (e is not c.ours, e.is_peer, e.method))
    for place, entry in enumerate(shown):
        search, fit = entry.mean(key, "choice") or 0.0, entry.mean(key, "finetune") or 0.0
        dark, light = (BLUE, "#8fc1e3") if entry is c.ours else (DARK, LIGHT)
        axis.barh(place, search / 60, color=dark, height=0.7)
        axis.barh(place, fit / 60, left=search / 60, color=light, height=0.7)
        top1 = entry.mean("test_top1")
        if top1 is not None:
            axis.annotate(
                f"{100 * top1:.1f} %", ((search + fit) / 60, place), xytext=(3, 0),
                textcoords="offset points", va="center", fontsize=7.5,
            )  # fmt: skip
    axis.set_yticks(range(len(shown)), [e.method for e in shown], fontsize=7.5)
    axis.invert_yaxis()
    axis.margins(x=0.16)
    axis.set_title(title(c.target).replace(", ", "\n", 1), fontsize=8.5)
    axis.set_xlabel("CPU minutes" if key == "cpu_seconds" else "minutes", fontsize=8)


def epoch_time(found: Found) -> Figure:
    """Draw the time of a plain training step against the MACs left."""
    from matplotlib import pyplot as plt

    figure, axis = plt.subplots(figsize=(4.6, 3.9), layout="constrained")
    colours = (BLUE, *OTHERS)
    for place, (network, rows) in enumerate(found.single["step"]["shrunk"].items()):
        shares = [100 * row["macs_share"] for row in rows]
        times = [100 * row["time_share"] for row in rows]
        axis.plot(
            shares, times, label=network, color=colours[place % len(colours)],
            marker=("o", *MARKERS)[place % len(MARKERS)], linewidth=1.5, markersize=5,
        )  # fmt: skip
    axis.plot([0, 100], [0, 100], color="black", linewidth=0.8, linestyle=":")
    axis.annotate("in proportion", (70, 70), xytext=(4, -10), textcoords="offset points")
    axis.set(
        xlabel="MACs left, %", ylabel="time of a training step, %", xlim=(0, 103), ylim=(0, 105)
    )
    axis.legend(loc="upper left")
    return figure
