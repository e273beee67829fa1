"""Accuracy against size and against latency, with the budgets drawn in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from compress_export.html_report.drawing import (
    BAD,
    CARD,
    FIRST,
    GREY,
    INK,
    LINE,
    MUTED,
    SECOND,
    Chart,
    Table,
    drawing,
    svg_of,
)
from compress_export.html_report.words import percent_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_FAR = 30.0
"""A budget so many times beyond all points is an arrow at the border, not a line in the void."""

_HEIGHT = 300
_LISTED = 8
"""So many files are named one by one below a picture; of more, those that no other one beats."""

_SIDES = ((0, 10), (0, -10), (11, 4), (-11, 4), (11, -8), (-11, -8), (0, 20), (0, -20))
"""Where the number of a point may stand, in pixels from it, best first."""


@dataclass(frozen=True)
class Point:
    """A file in the picture.

    Attributes:
        number: that the list beside the picture names.
        kind: "baseline", "onnx" or "tflite", which decides the colour.
        cost: size in bytes or latency in ms.
        shipped: in the bundle; others are drawn hollow.
    """

    number: int
    name: str
    kind: str
    cost: float
    score: float
    shipped: bool


@dataclass(frozen=True)
class Axis:
    """What accuracy is drawn against.

    Attributes:
        name: "file size", "latency".
        label: of the axis, with the unit that `scale` leads to.
        scale: cost times it is what the axis shows.
        text: a cost for people.
        limit: the budget, in units of the cost.
    """

    name: str
    label: str
    scale: float
    text: Callable[[float | None], str]
    limit: float | None


def draw_tradeoff(
    key: str,
    points: Sequence[Point],
    axis: Axis,
    metric: str,
    lowest_score: float | None,
    front: bool = False,
) -> Chart:
    """Draw points above a logarithmic axis.

    Args:
        lowest_score: that the accuracy budget allows, a fraction.
        front: join the points that no other one beats in both.
    """
    with drawing(_HEIGHT) as figure:
        axes = figure.add_subplot()
        axes.set_xscale("log")
        best = pareto(points) if front else []
        if len(best) > 1:
            xs, ys = [p.cost * axis.scale for p in best], [100 * p.score for p in best]
            axes.step(xs, ys, where="post", color=MUTED, linewidth=1.2, linestyle=(0, (4, 3)))
        for point in points:
            colour = {"onnx": FIRST, "tflite": SECOND}.get(point.kind, GREY)
            face = colour if point.shipped else CARD
            marker = {"onnx": "o", "tflite": "s"}.get(point.kind, "D")
            at = point.cost * axis.scale, 100 * point.score
            axes.plot(*at, marker, color=colour, markerfacecolor=face, markersize=8, zorder=3)
        _frame(axes, points, axis, lowest_score)
        _number(axes, points, axis)
        axes.set_xlabel(axis.label)
        axes.set_ylabel(f"{metric}, %")
        svg = svg_of(figure, key)
    rows = [(f"{p.number} {p.name}", axis.text(p.cost), percent_text(p.score)) for p in points]
    return Chart(
        key,
        f"Accuracy against {axis.name}",
        _summary(points, axis, metric, lowest_score),
        svg,
        Table(("file", axis.name, metric), rows),
    )


def pareto(points: Sequence[Point]) -> list[Point]:
    """Return the points that no other one beats, from the cheapest to the dearest."""
    found: list[Point] = []
    for point in sorted(points, key=lambda p: (p.cost, -p.score)):
        if not found or point.score > found[-1].score:
            found.append(point)
    return found


def _frame(axes: Axes, points: Sequence[Point], axis: Axis, lowest_score: float | None) -> None:
    """Set limits that show all points and the budgets, and draw these."""
    from matplotlib.ticker import FuncFormatter, LogLocator

    costs = [p.cost * axis.scale for p in points]
    scores = [100 * p.score for p in points]
    low, high = min(costs) / 1.6, max(costs) * 1.6
    limit = None if axis.limit is None else axis.limit * axis.scale
    near = limit is not None and low / _FAR < limit < high * _FAR
    if limit is not None and near:
        low, high = min(low, limit / 1.3), max(high, limit * 1.3)
    floor = None if lowest_score is None else 100 * lowest_score
    shown = [*scores, *([] if floor is None else [floor])]
    margin = max(0.25, 0.2 * (max(shown) - min(shown)))
    axes.set_xlim(low, high)
    axes.set_ylim(min(shown) - margin, max(shown) + 1.4 * margin)
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=8))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.minorticks_off()
    if floor is not None:
        axes.axhline(floor, color=BAD, linewidth=1.2)
        axes.axhspan(axes.get_ylim()[0], floor, color=BAD, alpha=0.07, linewidth=0)
        axes.annotate(
            f"accuracy budget {floor:.2f} %", (0.01, floor), xycoords=("axes fraction", "data"),
            xytext=(2, -3), textcoords="offset points", va="top", color=BAD, fontsize=10,
        )  # fmt: skip
    if limit is None:
        return
    text = axis.text(axis.limit)
    if near:
        axes.axvline(limit, color=BAD, linewidth=1.2)
        axes.axvspan(limit, high, color=BAD, alpha=0.07, linewidth=0)
        side = "right" if limit > (low * high) ** 0.5 else "left"
        axes.annotate(
            f"budget {text}", (limit, 1), xycoords=("data", "axes fraction"), va="top", ha=side,
            xytext=(-4 if side == "right" else 4, -2), textcoords="offset points", color=BAD,
            fontsize=10,
        )  # fmt: skip
    else:
        beyond = limit > high
        axes.annotate(
            f"budget {text} →" if beyond else f"← budget {text}", (1 if beyond else 0, 1),
            xycoords="axes fraction", va="top", ha="right" if beyond else "left",
            xytext=(-4 if beyond else 4, -2), textcoords="offset points", color=BAD, fontsize=10,
        )  # fmt: skip


def _number(axes: Axes, points: Sequence[Point], axis: Axis) -> None:
    """Write each point's number where it covers no other point or number."""
    places = axes.transData.transform([(p.cost * axis.scale, 100 * p.score) for p in points])
    taken = [tuple(place) for place in places]
    for point, (x, y) in zip(points, places, strict=True):
        others = [place for place in taken if place != (x, y)]
        free = (
            (dx, dy)
            for dx, dy in _SIDES
            if all(abs(x + dx - a) > 11 or abs(y + dy - b) > 10 for a, b in others)
        )
        dx, dy = next(free, _SIDES[0])
        taken.append((x + dx, y + dy))
        axes.annotate(
            str(point.number), (point.cost * axis.scale, 100 * point.score), xytext=(dx, dy),
            textcoords="offset points", ha="center", va="center", fontsize=10,
            fontweight="bold" if point.shipped else "normal", color=INK,
            arrowprops={"arrowstyle": "-", "color": LINE} if abs(dy) > 15 else None,
        )  # fmt: skip


def _summary(points: Sequence[Point], axis: Axis, metric: str, lowest_score: float | None) -> str:
    named, which = [p for p in points if p.shipped], ""
    if len(named) > _LISTED:
        named, which = pareto(named), "Not beaten by any other: "
    said = "; ".join(f"{p.name}: {percent_text(p.score)} at {axis.text(p.cost)}" for p in named)
    text = f"{metric} of {len(points)} files against {axis.name}. {which}{said}."
    if axis.limit is not None:
        text += f" The budget is {axis.text(axis.limit)}."
    if lowest_score is not None:
        text += f" At least {percent_text(lowest_score)} is allowed."
    return text
