"""Confusion before and after, the classes that lost most, and images whose answer changed."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from compress_export.html_report.drawing import (
    BAD,
    FIRST,
    GREY,
    INK,
    WIDTH,
    Chart,
    Table,
    drawing,
    plain_rows,
    rows_height,
    shortened,
    svg_of,
)
from compress_export.html_report.run_folder import Answers, ChangedImages
from compress_export.html_report.words import percent_text, points_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_CLASSES = 20
"""Of a whole confusion matrix; of more classes only those that lost most are shown."""

_LOSERS = 10
_LARGEST_PIXELS = 160


@dataclass(frozen=True)
class ChangedImage:
    """An image of the page: a data URI, its size on the page and what was said of it."""

    uri: str
    pixels: int
    crisp: bool
    row: int
    label: str
    before: str
    after: str
    right_before: bool
    right_after: bool


def confusion(
    labels: NDArray[np.int64], answers: NDArray[np.int64], classes: int
) -> NDArray[np.int64]:
    """Return the number of images for each class and answer, (classes, classes)."""
    flat = np.bincount(labels * classes + answers, minlength=classes * classes)
    return flat.reshape(classes, classes)


def draw_confusion(
    key: str,
    title: str,
    labels: NDArray[np.int64],
    answers: NDArray[np.int64],
    names: Sequence[str],
) -> Chart:
    """Draw the answers to each class as a matrix, with the counts in its cells."""
    counts = confusion(labels, answers, len(names))
    with drawing(WIDTH) as figure:
        _matrix(figure.add_subplot(), counts, [shortened(name, 10) for name in names])
        svg = svg_of(figure, key)
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    summary = f"{np.trace(counts)} of {counts.sum()} right."
    if wrong.any():
        true, said = divmod(int(wrong.argmax()), len(names))
        summary += (
            f" The most common mistake: {names[true]} taken for {names[said]}, "
            f"{wrong[true, said]} times."
        )
    rows = [(name, *map(str, row)) for name, row in zip(names, counts.tolist(), strict=True)]
    return Chart(key, title, summary, svg, Table(("is \\ answer", *names), rows))


def _matrix(axes: Axes, counts: NDArray[np.int64], names: Sequence[str]) -> None:
    from matplotlib.patches import Rectangle

    size = len(names)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figures = 9.5 if size <= 10 else 7
    for true, said in zip(*np.nonzero(counts), strict=True):
        right, value = true == said, float(share[true, said])
        # never so strong that the count in it is hard to read
        alpha = (0.08 + 0.4 * value) if right else min(0.08 + 2.5 * value, 0.48)
        corner = (said - 0.47, true - 0.47)
        colour = FIRST if right else BAD
        axes.add_patch(Rectangle(corner, 0.94, 0.94, color=colour, alpha=alpha, lw=0))
        axes.text(
            said, true, str(counts[true, said]), ha="center", va="center", fontsize=figures,
            fontweight="bold" if right else "normal",
        )  # fmt: skip
    axes.set_xlim(-0.6, size - 0.4)
    axes.set_ylim(size - 0.4, -0.6)
    axes.set_aspect("equal")
    axes.set_xticks(range(size), names, rotation=90 if max(map(len, names)) > 2 else 0)
    axes.set_yticks(range(size), names)
    axes.tick_params(length=0, labelsize=10 if size <= 10 else 8)
    axes.set_xlabel("answer")
    axes.set_ylabel("is")
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)


def draw_losers(answers: Answers, names: Sequence[str]) -> Chart | None:
    """Draw the recall before and after of the classes that lost most; None where none lost."""
    size = len(names)
    images = np.bincount(answers.labels, minlength=size)
    before, after = (
        np.bincount(answers.labels[found == answers.labels], minlength=size) / np.maximum(images, 1)
        for found in (answers.before, answers.after)
    )
    lost = np.flatnonzero((after < before) & (images > 0))
    shown = lost[np.argsort(after[lost] - before[lost], kind="stable")][:_LOSERS]
    if not len(shown):
        return None
    with drawing(rows_height(len(shown), row=26, frame=80)) as figure:
        axes = figure.add_subplot()
        for row, index in enumerate(shown):
            old, new = 100 * before[index], 100 * after[index]
            axes.plot([new, old], [row, row], color=BAD, linewidth=3, alpha=0.5)
            axes.plot(old, row, "o", color=GREY, markersize=8, label=None if row else "before")
            axes.plot(new, row, "o", color=BAD, markersize=8, label=None if row else "after")
            axes.annotate(
                points_text(new - old).removesuffix(" points"), (new, row), xytext=(-8, 0),
                textcoords="offset points", ha="right", va="center", fontsize=10, color=INK,
            )  # fmt: skip
        plain_rows(axes, [names[index] for index in shown])
        low, high = 100 * after[shown].min(), 100 * before[shown].max()
        axes.set_xlim(max(low - 0.35 * max(high - low, 2), -30), min(high + 2, 101.5))
        axes.set_xlabel("right answers, % of the class")
        figure.legend(loc="outside upper right", ncols=2, handlelength=0.8)
        svg = svg_of(figure, "losers")
    worst = shown[0]
    heads = ("class", "images", "before", "after", "change")
    return Chart(
        "losers",
        "Classes that lost most",
        f"{len(lost)} of {size} classes lost; {names[worst]} lost most, from "
        f"{percent_text(before[worst])} to {percent_text(after[worst])} of {images[worst]} images.",
        svg,
        Table(
            heads,
            [
                (
                    names[index],
                    str(images[index]),
                    percent_text(before[index]),
                    percent_text(after[index]),
                    points_text(100 * (after[index] - before[index])),
                )
                for index in shown
            ],
        ),
    )


def changed_images(
    changed: ChangedImages, answers: Answers, names: Sequence[str]
) -> list[ChangedImage]:
    """Return the images of the page; rows that the answers lack are left out."""
    found = []
    for row, image in zip(changed.rows, changed.images, strict=True):
        if row >= len(answers.labels):
            continue
        label, before, after = (
            int(part[row]) for part in (answers.labels, answers.before, answers.after)
        )
        uri, pixels, crisp = _embedded(image)
        found.append(
            ChangedImage(
                uri,
                pixels,
                crisp,
                row,
                names[label],
                names[before],
                names[after],
                before == label,
                after == label,
            )  # fmt: skip
        )
    return found


def _embedded(image: NDArray[np.uint8]) -> tuple[str, int, bool]:
    """Return a data URI, the side on the page in CSS pixels, and whether pixels are to be seen."""
    from PIL import Image

    picture, buffer = Image.fromarray(image), io.BytesIO()
    if max(picture.size) < _LARGEST_PIXELS // 2:
        picture.save(buffer, "PNG", optimize=True)
        kind, side = "png", max(picture.size) * max(1, 112 // max(picture.size))
    else:
        picture.thumbnail((_LARGEST_PIXELS, _LARGEST_PIXELS))
        picture.save(buffer, "JPEG", quality=82)
        kind, side = "jpeg", 128
    encoded = base64.b64encode(buffer.getvalue()).decode("ascii")
    return f"data:image/{kind};base64,{encoded}", side, kind == "png"
