"""Pictures of finished model files: the showcase's four charts, and accuracy against latency."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from benchmarks.pruning.page.file_tables import BUDGETS, file_name, latency_pairs
from benchmarks.pruning.page.plot_style import BLUE, DARK

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from benchmarks.pruning.page.sections import Found

ROLE_COLOURS = {"original": "#7a7a7a", "continued": "#bdbdbd", "slim": "#56B4E9"}
INT8_COLOUR = BLUE


def showcase(found: Found) -> Figure:
    """Draw size, evaluation time, accuracy and speed-up of each network's files."""
    from matplotlib import pyplot as plt

    charts: tuple[tuple[str, Callable[[dict[str, Any]], float], str], ...] = (
        ("size, MiB", lambda f: f["size_bytes"] / 2**20, "{:.2f}"),
        ("evaluation time, s", lambda f: f["eval_seconds"], "{:.1f}"),
        ("top-1, %", lambda f: 100 * f["top1"], "{:.2f}"),
        ("speed-up of the evaluation, times", lambda f: f["eval_factor"], "{:.1f}"),
    )
    most = max(len(row["files"]) for row in found.showcase)
    figure, axes = plt.subplots(
        len(found.showcase), 4, figsize=(12, len(found.showcase) * (0.8 + 0.25 * most)),
        layout="constrained", squeeze=False, sharey="row",
    )  # fmt: skip
    for line, row in zip(axes, found.showcase, strict=True):
        for axis, (label, value, text) in zip(line, charts, strict=True):
            # A bar says nothing where the axis doesn't start at 0.
            _file_values(axis, row["files"], value, text, bars=not label.startswith("top-1"))
            axis.set_xlabel(label)
        line[0].set_title(row["network"], loc="left")
    return figure


def _file_values(
    axis: Axes,
    files: Sequence[dict[str, Any]],
    value: Callable[[dict[str, Any]], float],
    text: str,
    *,
    bars: bool,
) -> None:
    formats = sorted({file["format"] for file in files})
    # A gap between the formats: a file is compared with those of its own.
    places = [i + 0.6 * formats.index(file["format"]) for i, file in enumerate(files)]
    for place, file in zip(places, files, strict=True):
        colour = INT8_COLOUR if file["precision"] == "int8" else ROLE_COLOURS[file["role"]]
        if bars:
            axis.barh(place, value(file), color=colour, height=0.7)
        else:
            axis.plot(value(file), place, "o", color=colour, markersize=7)
        axis.annotate(
            text.format(value(file)), (value(file), place), xytext=(3 if bars else 7, 0),
            textcoords="offset points", va="center", fontsize=7.5,
        )  # fmt: skip
    axis.set_yticks(places, [file_name(file) for file in files], fontsize=8)
    if bars:
        axis.margins(x=0.2)
    else:
        middle = (min(map(value, files)) + max(map(value, files))) / 2
        half = max(1.0, 0.75 * (max(map(value, files)) - min(map(value, files))))
        axis.set_xlim(middle - half, middle + half)
    if not axis.yaxis_inverted():
        axis.invert_yaxis()


def accuracy_by_latency(found: Found) -> Figure:
    """Draw the INT8 files of searches under a MACs budget and under a latency budget."""
    from matplotlib import pyplot as plt

    panels: dict[tuple[str, str], dict[str, list[tuple[float, float]]]] = {}
    for key, sides in latency_pairs(found.latency_search).items():
        for side, rows in sides.items():
            points = [(row["latency_ms"], 100 * row["int8"]["top1"]) for row in rows.values()]
            series = panels.setdefault((key.network, key.runtime), {})
            series.setdefault(side, []).extend(points)
    figure, axes = plt.subplots(
        1, len(panels), figsize=(0.6 + 3.8 * len(panels), 3.6), layout="constrained", squeeze=False
    )
    for axis, ((network, runtime), series) in zip(axes[0], panels.items(), strict=True):
        for side, colour, marker in (("macs", DARK, "s"), ("latency", BLUE, "o")):
            milliseconds, top1 = zip(*series[side], strict=True)
            axis.scatter(milliseconds, top1, color=colour, marker=marker, s=34, label=BUDGETS[side])
        axis.set(title=f"{network}, {runtime}", xlabel="latency of one image, ms")
        axis.margins(0.15)
        axis.grid(color="#e6e6e6", linewidth=0.7)
        axis.set_axisbelow(True)
    axes[0][0].set_ylabel("top-1 of the INT8 file, %")
    axes[0][0].legend(loc="lower right")
    return figure
