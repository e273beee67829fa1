"""Paired comparisons of two methods on the same test images and seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

_REPLICATES = 2000


@dataclass(frozen=True)
class Difference:
    """How much more accurate one method is than another, in percentage points.

    Attributes:
        mean: over seeds and images.
        low, high: 95 % interval of the bootstrap.
        seeds: how many seeds both have.
    """

    mean: float
    low: float
    high: float
    seeds: int

    @property
    def above(self) -> bool:
        """The whole interval is above zero."""
        return self.low > 0


def paired_difference(
    ours: Mapping[int, NDArray[np.bool_]], theirs: Mapping[int, NDArray[np.bool_]]
) -> Difference:
    """Bootstrap the difference over seeds and, within them, over test images.

    Every replicate draws seeds with replacement and one set of images with replacement, the same
    for both methods (Efron & Tibshirani 1993, chapter 8: resample as the data came about).

    Args:
        ours, theirs: seed -> which test images were answered rightly, bool (N,).

    Raises:
        ValueError: no seed is in both.
    """
    seeds = sorted(set(ours) & set(theirs))
    if not seeds:
        raise ValueError("the two methods have no seed in common")
    # +1 where only ours is right, -1 where only theirs is: (seeds, images)
    gaps = np.stack([ours[s].astype(np.int8) - theirs[s].astype(np.int8) for s in seeds])
    rng = np.random.default_rng(0)
    count = gaps.shape[1]
    replicates = np.empty(_REPLICATES)

    @cache
    def values_of(drawn: tuple[int, ...]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        return np.unique(gaps[list(drawn)].sum(axis=0, dtype=np.int64), return_counts=True)

    for index in range(_REPLICATES):
        # Drawing images is drawing how often each value occurs: a handful of values, not images.
        drawn = sorted(rng.integers(len(seeds), size=len(seeds)).tolist())
        values, occurrences = values_of(tuple(drawn))
        times = rng.multinomial(count, occurrences / count)
        replicates[index] = values @ times / (count * len(seeds))
    low, high = np.percentile(replicates, [2.5, 97.5]) * 100
    return Difference(float(gaps.mean()) * 100, float(low), float(high), len(seeds))


def area_under(points: Sequence[tuple[float, float]], start: float, stop: float) -> float:
    """Return the mean accuracy over a range of bytes, points joined by straight lines.

    Args:
        points: (bytes, accuracy) of one method, in any order.
        start, stop: range of bytes, within the points'.
    """
    places = sorted(points)
    grid = np.linspace(start, stop, 1001)
    values = np.interp(grid, [b for b, _ in places], [a for _, a in places])
    return float(np.trapezoid(values, grid) / (stop - start))
