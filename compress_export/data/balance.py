"""What to know of the number of images: broken ones, very unequal classes, few to test with."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

UNEQUAL = 10
"""The largest class has so many times the training images of the smallest: worth a remark."""
FEW_TEST_IMAGES = 100
"""With fewer, one image is more than a percentage point, which is what budgets are made of."""
_SHOWN = 10
_NAMED = 3  # of the broken images


def remarks(
    classes: Sequence[str], train: NDArray[np.int64], test: NDArray[np.int64]
) -> tuple[str, ...]:
    """A line for each thing that makes top-1 say less than it seems to.

    Args:
        train, test: labels, (N,).
    """
    found = []
    counts = np.bincount(train, minlength=len(classes))
    if counts.max() >= UNEQUAL * counts.min():
        found.append(
            "the classes are very unequal, and top-1 hardly counts the small ones; training "
            f"images: {_largest_first(classes, counts)}"
        )
    if len(test) < FEW_TEST_IMAGES:
        points = 100 / max(len(test), 1)
        found.append(
            f"there are only {len(test)} test images: each is {points:.1f} points of top-1"
        )
    return tuple(found)


def left_out(skipped: Sequence[str]) -> str:
    """Say how many images were broken, and name the first."""
    names = ", ".join(skipped[:_NAMED]) + (", ..." if len(skipped) > _NAMED else "")
    what = "image was" if len(skipped) == 1 else "images were"
    return f"{len(skipped)} broken {what} left out: {names}"


def _largest_first(classes: Sequence[str], counts: NDArray[np.int64]) -> str:
    order = np.argsort(-counts, kind="stable")
    each = [f"{classes[label]} {counts[label]}" for label in order]
    if len(each) > _SHOWN:
        each[_SHOWN // 2 : -_SHOWN // 2] = ["..."]
    return ", ".join(each)
