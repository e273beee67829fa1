"""Pictures as inline SVG that the page's style sheet colours.

matplotlib draws them: it is there anyway, needs no script in the page, and keeps text as text.
Its colours are placeholders here, replaced by CSS custom properties, so that one picture serves
light and dark mode. Every picture is drawn for the width of a phone and only ever scaled up a
little, so that its text stays readable; wide screens place pictures side by side.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 380
"""Of every picture in CSS pixels; a phone shows 340 of them."""

# Placeholders: no picture uses these colours for anything else.
INK, MUTED, LINE, CARD = "#010a01", "#010a02", "#010a03", "#010a04"
FIRST, SECOND, GREY = "#010a05", "#010a06", "#010a07"
GOOD, BAD = "#010a08", "#010a09"
_PROPERTIES = {
    INK: "--ink", MUTED: "--muted", LINE: "--line", CARD: "--card", FIRST: "--first",
    SECOND: "--second", GREY: "--grey", GOOD: "--good", BAD: "--bad",
}  # fmt: skip

_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "compress-export",
    "text.parse_math": False,  # a class may be called "$5"
    "font.size": 11,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 11,
    "axes.edgecolor": LINE,
    "axes.facecolor": "none",
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": LINE,
    "grid.linewidth": 0.7,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.labelsize": 10.5,
    "ytick.labelsize": 10.5,
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "legend.frameon": False,
    "legend.fontsize": 10.5,
    "path.simplify": False,
}
_SVG, _XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"


@dataclass(frozen=True)
class Table:
    """Rows of text below headings; the first cell of a row is its heading."""

    headings: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Chart:
    """A picture with all that is needed to do without it.

    Attributes:
        key: unique on the page, of letters, digits and dashes.
        title: what it shows.
        summary: what there is to be seen, in a sentence.
        svg: trusted markup; text of the user's is escaped in it.
        table: the figures behind it.
    """

    key: str
    title: str
    summary: str
    svg: str
    table: Table


@contextmanager
def drawing(height: float) -> Iterator[Figure]:
    """Give an empty figure of the common width and style; finish it with `svg_of` inside."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        # names in scripts that matplotlib's own font lacks: the browser has others
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from")
        yield Figure(figsize=(WIDTH / 72, height / 72), dpi=72, layout="constrained")


def rows_height(rows: int, row: float = 17, frame: float = 60) -> float:
    """Height of a picture with a row for each of something."""
    return frame + row * rows


def svg_of(figure: Figure, key: str) -> str:
    """Return a figure as markup for an HTML page; its ids start with the key."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    root = ElementTree.fromstring(buffer.getvalue())
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{{{_SVG}}}metadata", f"{{{_SVG}}}style"):
                parent.remove(child)
    for element in root.iter():
        _adapt(element, key)
    for name in ("width", "height", "version"):
        root.attrib.pop(name, None)
    root.set("role", "img")
    root.set("aria-labelledby", f"{key}-title {key}-summary")
    ElementTree.register_namespace("", _SVG)
    ElementTree.register_namespace("xlink", _XLINK)
    return ElementTree.tostring(root, encoding="unicode")


def _adapt(element: ElementTree.Element, key: str) -> None:
    """Make ids unique on the page, colours follow it, fonts its own."""
    if (name := element.get("id")) is not None:
        element.set("id", f"{key}-{name}")
    for attribute in (f"{{{_XLINK}}}href", "href"):
        if (target := element.get(attribute)) is not None:
            element.set(attribute, target.replace("#", f"#{key}-", 1))
    if (clip := element.get("clip-path")) is not None:
        element.set("clip-path", clip.replace("url(#", f"url(#{key}-", 1))
    if (style := element.get("style")) is not None:
        for colour, name in _PROPERTIES.items():
            style = style.replace(colour, f"var({name})")
        style = re.sub(r"font: ([\d.]+px) [^;]*", r"font-size: \1", style)
        element.set("style", re.sub(r"font-family: [^;]*;? ?", "", style))


def plain_rows(axes: Axes, names: Sequence[str]) -> None:
    """Prepare axes for one row per name, the first on top."""
    axes.set_yticks(range(len(names)), [shortened(name) for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(visible=False, axis="y")


def shortened(name: str, longest: int = 22) -> str:
    """A name that fits beside a picture; its ends tell most."""
    half = (longest - 1) // 2
    return name if len(name) <= longest else f"{name[:half]}…{name[-half:]}"
