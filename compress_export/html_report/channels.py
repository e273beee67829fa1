"""Kept channels of every layer, and the agents' probabilities while they learned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from compress_export.html_report.drawing import (
    BAD,
    FIRST,
    GOOD,
    GREY,
    INK,
    MUTED,
    Chart,
    Table,
    drawing,
    plain_rows,
    rows_height,
    svg_of,
)

_MOST_LAYERS = 60
_MOST_GROUPS = 40
_BAND_NAMES = ("sure to go", "likely to go", "undecided", "likely to stay", "sure to stay")
_BAND_COLOURS = ((BAD, 0.85), (BAD, 0.35), (GREY, 0.45), (GOOD, 0.35), (GOOD, 0.85))


def draw_layers(layers: Sequence[Mapping[str, Any]]) -> Chart:
    """Draw a bar for each layer: its channels, and those that stayed.

    Of a deep network the layers that lost most channels are drawn; the table has all of them.
    """
    from matplotlib.ticker import MaxNLocator

    most = sorted(layers, key=lambda layer: layer["kept"] - layer["channels"])[:_MOST_LAYERS]
    shown = [layer for layer in layers if layer in most]
    with drawing(rows_height(len(shown), frame=50)) as figure:
        axes = figure.add_subplot()
        rows = range(len(shown))
        totals, kept = [e["channels"] for e in shown], [e["kept"] for e in shown]
        axes.barh(rows, totals, height=0.7, color=GREY, alpha=0.3)
        axes.barh(rows, kept, height=0.7, color=FIRST)
        for row, (stay, total) in enumerate(zip(kept, totals, strict=True)):
            axes.annotate(
                f"{stay}/{total}", (total, row), xytext=(4, 0), textcoords="offset points",
                va="center", fontsize=9.5, color=INK if stay < total else MUTED,
            )  # fmt: skip
        plain_rows(axes, [layer["layer"] for layer in shown])
        axes.set_xlim(0, max(totals) * 1.18)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("output channels: kept (solid) of all")
        svg = svg_of(figure, "layers")
    before, after = sum(e["channels"] for e in layers), sum(e["kept"] for e in layers)
    hit = min(layers, key=lambda layer: layer["kept"] / layer["channels"])
    left_out = len(layers) - len(shown)
    return Chart(
        "layers",
        "Kept channels per layer"
        + (f" (the {len(shown)} that lost most of {len(layers)})" if left_out else ""),
        f"{after} of {before} channels stayed; {hit['layer']} kept the smallest share, "
        f"{hit['kept']} of {hit['channels']}.",
        svg,
        Table(
            ("layer", "channels", "kept", "share"),
            [
                (
                    str(e["layer"]),
                    str(e["channels"]),
                    str(e["kept"]),
                    f"{100 * e['kept'] / e['channels']:.0f} %",
                )
                for e in layers
            ],
        ),
    )


def draw_certainty(agents: Mapping[str, Any], key: str, title: str) -> Chart:
    """Draw how the agents' keep probabilities spread over time, from doubt to certainty."""
    percent = [100 * share for share in agents["progress"]]
    shares = [[100 * row[band] for row in agents["certainty"]] for band in range(len(_BAND_NAMES))]
    with drawing(290) as figure:
        axes = figure.add_subplot()
        for colours, name, bottom, top in _stacked(shares):
            colour, alpha = colours
            axes.fill_between(percent, bottom, top, color=colour, alpha=alpha, lw=0, label=name)
        axes.set_xlim(percent[0], max(percent[-1], percent[0] + 1))
        axes.set_ylim(0, 100)
        axes.set_xlabel("share of the search, %")
        axes.set_ylabel("agents, %")
        handles, labels = axes.get_legend_handles_labels()
        figure.legend(
            handles[::-1], labels[::-1], loc="outside upper left", ncols=3, handlelength=1.1,
            columnspacing=1.1,
        )  # fmt: skip
        svg = svg_of(figure, key)
    first, last = agents["certainty"][0], agents["certainty"][-1]
    bands = [f"{low:g} to {high:g}" for low, high in pairwise(agents["bands"])]
    moments = _moments(len(percent))
    return Chart(
        key,
        title,
        f"At first {100 * (first[0] + first[-1]):.0f} % of the agents were sure (probability below "
        f"{agents['bands'][1]:g} or above {agents['bands'][-2]:g}), at the end "
        f"{100 * (last[0] + last[-1]):.0f} %; {100 * last[-1]:.0f} % are sure to stay.",
        svg,
        Table(
            ("share of the search", *(f"p {band}" for band in bands)),
            [
                (f"{percent[i]:.0f} %", *(f"{100 * s:.1f} %" for s in agents["certainty"][i]))
                for i in moments
            ],
        ),
    )


def draw_groups(agents: Mapping[str, Any], key: str, title: str) -> Chart:
    """Draw the mean keep probability of each group of channels over time."""
    groups = sorted(agents["groups"], key=lambda g: g["probability"][-1] - g["probability"][0])
    chosen = groups[:_MOST_GROUPS]
    shown = [group for group in agents["groups"] if group in chosen]
    percent = [100 * share for share in agents["progress"]]
    borders = [0.0, *percent]
    with drawing(rows_height(len(shown), frame=70)) as figure:
        axes = figure.add_subplot()
        for row, group in enumerate(shown):
            for start, end, p in _runs(borders, group["probability"]):
                axes.barh(row, end - start, left=start, height=0.86, color=FIRST, alpha=p, lw=0)
            axes.annotate(
                f"{100 * group['probability'][-1]:.0f}", (1, row), va="center", fontsize=9.5,
                xycoords=("axes fraction", "data"), xytext=(4, 0), textcoords="offset points",
                color=INK,
            )  # fmt: skip
        plain_rows(axes, [group["name"] for group in shown])
        axes.set_xlim(0, 100)
        axes.grid(visible=False)
        axes.set_xlabel("share of the search, %; at the right: kept in the end, %")
        svg = svg_of(figure, key)
    moments = _moments(len(percent))
    last = {group["name"]: group["probability"][-1] for group in shown}
    lowest = min(last, key=lambda name: last[name])
    return Chart(
        key,
        title,
        f"The darker, the likelier channels of a layer are to stay. {lowest} fell lowest, to "
        f"{100 * last[lowest]:.0f} %.",
        svg,
        Table(
            ("channels of", "agents", *(f"at {percent[i]:.0f} %" for i in moments)),
            [
                (
                    str(group["name"]),
                    str(group["agents"]),
                    *(f"{100 * group['probability'][i]:.1f} %" for i in moments),
                )
                for group in agents["groups"]
            ],
        ),
    )


def _stacked(
    shares: Sequence[Sequence[float]],
) -> list[tuple[tuple[str, float], str, list[float], list[float]]]:
    """Return colour, name, lower and upper curve of each band, from sure to stay upwards to go."""
    found, bottom = [], [0.0] * len(shares[0])
    for band in reversed(range(len(shares))):
        top = [low + share for low, share in zip(bottom, shares[band], strict=True)]
        found.append((_BAND_COLOURS[band], _BAND_NAMES[band], bottom, top))
        bottom = top
    return found


def _runs(
    borders: Sequence[float], probabilities: Sequence[float]
) -> list[tuple[float, float, float]]:
    """Join moments with the same probability to the eye: start, end, probability in twentieths."""
    found: list[tuple[float, float, float]] = []
    for (start, end), p in zip(pairwise(borders), probabilities, strict=True):
        level = min(max(round(p * 20) / 20, 0.0), 1.0)
        if found and found[-1][2] == level:
            found[-1] = (found[-1][0], end, level)
        else:
            found.append((start, end, level))
    return found


def _moments(count: int, wanted: int = 5) -> list[int]:
    """Return a few indices from the first to the last."""
    return sorted({round(i * (count - 1) / (wanted - 1)) for i in range(wanted)})
