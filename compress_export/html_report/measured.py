"""Latency of every run, and memory over the order of execution."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from compress_export.html_report.drawing import (
    BAD,
    FIRST,
    GREY,
    INK,
    MUTED,
    SECOND,
    Chart,
    Table,
    drawing,
    plain_rows,
    rows_height,
    svg_of,
)
from compress_export.html_report.words import ms_text, size_text

_MOST_DOTS = 60
_MOST_ROWS = 200
"""Of the table behind the memory picture: deep networks have thousands of operators."""


def draw_latency(latency_ms: Mapping[str, Sequence[float]], limit_ms: float | None) -> Chart:
    """Draw all runs of each file as dots, the middle half as a bar, and p50 and p90."""
    from matplotlib.ticker import FuncFormatter, LogLocator

    marks = {
        name: np.percentile(times, [0, 25, 50, 75, 90, 99, 100])
        for name, times in latency_ms.items()
    }
    with drawing(rows_height(len(marks), row=34, frame=80)) as figure:
        axes = figure.add_subplot()
        axes.set_xscale("log")
        for row, (name, times) in enumerate(latency_ms.items()):
            colour = GREY if name.startswith("baseline") else FIRST
            dots = np.quantile(times, np.linspace(0, 1, min(len(times), _MOST_DOTS)))
            heights = row + 0.26 * np.sin(np.arange(len(dots)) * 2.4)  # spread, without chance
            axes.plot(dots, heights, "o", color=colour, alpha=0.35, markersize=3, mew=0)
            _, low, p50, high, p90, _, _ = marks[name]
            axes.barh(row, high - low, left=low, height=0.6, color=colour, alpha=0.25, lw=0)
            axes.plot([p50, p50], [row - 0.38, row + 0.38], color=INK, linewidth=2)
            axes.plot([p90, p90], [row - 0.38, row + 0.38], color=SECOND, linewidth=2)
        plain_rows(axes, list(marks))
        # a machine that was busy for a moment must not squeeze all else
        longest = 2.0 * max(float(m[4]) for m in marks.values())
        if limit_ms is not None and limit_ms < longest:
            axes.axvline(limit_ms, color=BAD, linewidth=1.2)
        axes.set_xlim(0.85 * min(float(m[0]) for m in marks.values()), longest)
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=8))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.minorticks_off()
        axes.set_xlabel("ms for one image; lines: p50, then p90")
        svg = svg_of(figure, "latency")
    beyond = sum(ms > longest for times in latency_ms.values() for ms in times)
    fastest = min(marks, key=lambda name: float(marks[name][4]))
    heads = ("file", "runs", "least", "p25", "p50", "p75", "p90", "p99", "most")
    return Chart(
        "latency",
        "Latency of single images",
        f"Every dot is a run, the bar is the middle half, the lines are p50 and p90. {fastest} has "
        f"the lowest p90, {ms_text(float(marks[fastest][4]))}."
        + (f" {beyond} runs took longer than is drawn." if beyond else ""),
        svg,
        Table(
            heads,
            [
                (name, str(len(latency_ms[name])), *(ms_text(float(m)) for m in marks[name]))
                for name in marks
            ],
        ),
    )


def draw_memory(
    before: tuple[str, Mapping[str, Any]] | None, after: tuple[str, Mapping[str, Any]]
) -> Chart:
    """Draw the bytes alive while each operator runs, before and after.

    Args:
        before: the file to compare with and its operators, in `evidence.MEMORY`'s form.
    """
    with drawing(280) as figure:
        axes = figure.add_subplot()
        for pair, colour, fill in ((before, GREY, 0.18), (after, FIRST, 0.3)):
            if pair is None:
                continue
            name, curve = pair
            kib = np.array([*curve["live_bytes"], curve["live_bytes"][-1]]) / 2**10
            share = np.linspace(0, 100, len(kib))
            axes.fill_between(share, kib, step="post", color=colour, alpha=fill, lw=0)
            axes.step(share, kib, where="post", color=colour, linewidth=1.4, label=name)
        axes.set_xlim(0, 100)
        axes.set_ylim(0)
        axes.set_xlabel("order of execution, % of the operators")
        axes.set_ylabel("activations alive, KiB")
        axes.yaxis.label.set_color(MUTED)
        figure.legend(loc="outside upper left", ncols=1, handlelength=1.4)
        svg = svg_of(figure, "memory")
    name, curve = after
    live = curve["live_bytes"]
    peak = int(np.argmax(live))
    where = curve["operators"][peak] if curve["operators"] else "the input"
    summary = (
        f"{name} needs most at operator {peak + 1} of {len(live)}, {where}: {size_text(live[peak])}"
    )
    if before is not None:
        summary += f"; {before[0]} needs {size_text(max(before[1]['live_bytes']))}"
    rows = [
        (str(index + 1), operator, size_text(size))
        for index, (operator, size) in enumerate(zip(curve["operators"], live, strict=False))
    ]
    if len(rows) > _MOST_ROWS:
        rows = sorted(rows, key=lambda row: -live[int(row[0]) - 1])[:_MOST_ROWS]
    return Chart(
        "memory",
        "Memory over the order of execution",
        f"{summary}. A lower bound: no workspace, alignment or fragmentation.",
        svg,
        Table((f"operator of {name}", "kind", "alive"), rows),
    )
