"""Colours and marks of all pictures: ours stands out, peers are grey."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.pruning.page.comparison import Comparison
from benchmarks.pruning.page.records import OURS

BLUE = "#0072B2"
"""Of the default agents. All colours but the greys are Okabe and Ito's, which the colour-blind can
tell apart (https://jfly.uni-koeln.de/color/)."""

OTHERS = ("#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9")
GREYS = ("#4d4d4d", "#7a7a7a", "#9e9e9e", "#bdbdbd")
DARK, LIGHT = GREYS[0], GREYS[-1]
MARKERS = ("s", "^", "D", "v", "P", "X", "<", ">")


def method_styles(comparisons: Sequence[Comparison]) -> dict[str, dict[str, Any]]:
    """Return method -> how its line looks, ours first, then our other methods, then peers."""
    entries = [entry for c in comparisons for entry in c.entries]
    names = sorted({(e.is_peer, e.method) for e in entries if e.method != OURS})
    looks: dict[str, dict[str, Any]] = {
        OURS: {"color": BLUE, "linewidth": 2.6, "marker": "o", "markersize": 7, "zorder": 5}
    }
    for place, (is_peer, name) in enumerate(names):
        colours = GREYS if is_peer else OTHERS
        looks[name] = {
            "color": colours[place % len(colours)],
            "linewidth": 1.1,
            "linestyle": "--" if is_peer else "-",
            "marker": MARKERS[place % len(MARKERS)],
            "markersize": 4.5,
            "zorder": 3,
        }
    return looks
