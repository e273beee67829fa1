"""Split labelled images so that every class keeps its share on both sides."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from compressor.errors import InputError

VALIDATION_SHARE = 0.1
MAX_VALIDATION_IMAGES = 5_000


def are_classes(labels: NDArray[Any]) -> bool:
    """Whether labels are class numbers, not values or masks that a user's own loss understands."""
    return labels.ndim == 1 and labels.dtype.kind in "iu"


def strata(labels: NDArray[Any]) -> NDArray[np.int64]:
    """What a split keeps balanced, (N,): the classes, and nothing where labels are no classes."""
    return labels if are_classes(labels) else np.zeros(len(labels), dtype=np.int64)


def stratified_split(
    labels: NDArray[np.int64], share: float, seed: int, at_most: int | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Put `share` of the images aside, chosen at random within each class.

    Args:
        labels: class of each image, (N,).
        share: of the images to put aside, between 0 and 1.
        seed: decides which ones, together with the labels and nothing else.
        at_most: limit of the number put aside, where the share gives more.

    Returns:
        Indices that stay and indices put aside, both ascending. A class with two images or more
        has at least one on either side; a class with one image keeps it.

    Raises:
        InputError: a share outside 0..1.
    """
    if not 0 < share < 1:
        raise InputError(f"a split needs a share above 0 and below 1, got {share}")
    classes, counts = np.unique(labels, return_counts=True)
    wanted = round(share * len(labels))
    quotas = _quotas(counts, wanted if at_most is None else min(wanted, at_most))
    random = np.random.default_rng(seed)
    aside = np.zeros(len(labels), dtype=bool)
    for label, quota in zip(classes, quotas, strict=True):
        members = np.flatnonzero(labels == label)
        aside[random.permutation(members)[:quota]] = True
    return np.flatnonzero(~aside), np.flatnonzero(aside)


def _quotas(counts: NDArray[np.int64], total: int) -> NDArray[np.int64]:
    """Share out `total` in proportion to `counts`, by largest remainder, then at least one each."""
    exact = total * counts / max(counts.sum(), 1)
    quotas = np.floor(exact).astype(np.int64)
    largest_first = np.argsort(quotas - exact, kind="stable")
    quotas[largest_first[: total - quotas.sum()]] += 1
    return np.minimum(np.maximum(quotas, 1), counts - 1)
