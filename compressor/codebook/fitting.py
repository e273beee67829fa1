"""Fit a codebook to a layer's weights: k-means in one dimension, or a mixture of Gaussians."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from compressor.errors import InputError

MIN_ENTRIES, MAX_ENTRIES = 2, 256

Floats = NDArray[np.float64]
Start = Literal["k-means++", "linear"]
FitName = Literal["kmeans", "kmeans-linear", "mixture"]

_START_SAMPLE = 20_000
_MIXTURE_SAMPLE = 20_000
"""Weights that k-means++ draws from, and that a mixture is fitted to: enough for 256 entries."""

_AT_ONCE = 2**14
"""Weights whose likelihoods, one for each entry, are in memory together."""

_MAX_STEPS = 300


@dataclass(frozen=True)
class Codebook:
    """Values, and which of them each weight takes.

    Attributes:
        centroids: (entries,), ascending; each is the mean of the weights that take it.
        indices: (weights,), into the centroids; every centroid is taken by some weight.
    """

    centroids: Floats
    indices: NDArray[np.int64]

    @classmethod
    def of(cls, values: Floats, clusters: NDArray[np.int64]) -> Codebook:
        """Make the codebook of a clustering; clusters without members are left out.

        Args:
            values: (weights,).
            clusters: (weights,), numbers from 0 in any order.
        """
        members = np.bincount(clusters)
        means = np.bincount(clusters, weights=values) / np.maximum(members, 1)
        taken = np.flatnonzero(members)
        order = taken[np.argsort(means[taken])]
        rank = np.empty(len(members), np.int64)
        rank[order] = np.arange(len(order))
        return cls(means[order], rank[clusters])


Fit = Callable[[Floats, int, int], Codebook]
"""Called with the weights (N,), the number of entries and a seed."""


def kmeans(values: Floats, entries: int, seed: int, *, start: Start = "k-means++") -> Codebook:
    """Cluster by least squares: Lloyd's iterations until nothing changes.

    The weights are sorted, so a cluster is a slice, its mean a difference of running sums, and an
    iteration costs as many binary searches as there are entries, however many weights.

    Args:
        values: (N,).
        entries: 2 to 256; fewer come back where fewer values are distinct, or clusters run empty.
        start: k-means++ (Arthur & Vassilvitskii 2007), or entries spaced equally from the smallest
            to the largest weight, which Han et al. 2016 found best of theirs
            (https://arxiv.org/abs/1510.00149, section 3.2).

    Raises:
        InputError: entries out of range, or values that aren't finite.
    """
    exact = _checked(values, entries)
    if exact is not None:
        return exact
    ordered = np.sort(values)
    sums = np.concatenate([[0.0], np.cumsum(ordered)])
    centroids = np.sort(_starts(values, entries, seed, start))
    for _ in range(_MAX_STEPS):
        cuts = np.searchsorted(ordered, _boundaries(centroids))
        edges = np.concatenate([[0], cuts, [len(ordered)]])
        members = np.diff(edges)
        means = np.diff(sums[edges]) / np.maximum(members, 1)
        moved = np.where(members > 0, means, centroids)
        if np.array_equal(moved, centroids):
            break
        centroids = moved
    return Codebook.of(values, np.searchsorted(_boundaries(centroids), values))


def mixture(values: Floats, entries: int, seed: int) -> Codebook:
    """Cluster by a mixture of Gaussians of one width: a weight goes where it most likely came from.

    Frequent clusters reach further than rare ones: compared with k-means the squared error is
    larger, and the indices take fewer bits once they are entropy-coded. With a width for each
    component both get worse: a wide one swallows the tails on both sides (docs/codebook.md).

    Args and errors are those of `kmeans`; the fit starts from its centroids.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    exact = _checked(values, entries)
    if exact is not None:
        return exact
    start = kmeans(values, entries, seed)
    members = np.bincount(start.indices)
    model = GaussianMixture(
        len(start.centroids),
        covariance_type="tied",
        means_init=start.centroids[:, None],
        weights_init=members / members.sum(),
        # Weights are far below 1, the library's 1e-6 would be a width of its own.
        reg_covar=1e-6 * float(np.var(values)),
        max_iter=_MAX_STEPS,
        random_state=seed,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the last step's fit is as good
        model.fit(_sample(values, _MIXTURE_SAMPLE, seed)[:, None])
    parts = np.array_split(values, -(-len(values) // _AT_ONCE))
    return Codebook.of(values, np.concatenate([model.predict(part[:, None]) for part in parts]))


FITS: Mapping[FitName, Fit] = {
    "kmeans": kmeans,
    "kmeans-linear": partial(kmeans, start="linear"),
    "mixture": mixture,
}


def _checked(values: Floats, entries: int) -> Codebook | None:
    """Check arguments; return the codebook itself where no more values than entries are distinct.

    Raises:
        InputError: entries out of range, or values that aren't finite.
    """
    if not MIN_ENTRIES <= entries <= MAX_ENTRIES:
        raise InputError(
            f"a codebook of {entries} entries: {MIN_ENTRIES} to {MAX_ENTRIES} are possible"
        )
    if not np.isfinite(values).all():
        raise InputError("weights that are not finite have no codebook; did training diverge?")
    distinct, clusters = np.unique(values, return_inverse=True)
    return Codebook(distinct, clusters.ravel()) if len(distinct) <= entries else None


def _starts(values: Floats, entries: int, seed: int, start: Start) -> Floats:
    if start == "linear":
        return np.linspace(values.min(), values.max(), entries)
    from sklearn.cluster import kmeans_plusplus

    drawn = np.unique(_sample(values, _START_SAMPLE, seed))
    if len(drawn) <= entries:
        return np.linspace(values.min(), values.max(), entries)
    centers, _ = kmeans_plusplus(drawn[:, None], entries, random_state=seed)
    found: Floats = centers[:, 0]
    return found


def _sample(values: Floats, most: int, seed: int) -> Floats:
    """Draw some of the values where there are more than that."""
    if len(values) <= most:
        return values
    return np.random.default_rng(seed).choice(values, most, replace=False)


def _boundaries(centroids: Floats) -> Floats:
    """Return the middles between neighbours, (entries - 1,)."""
    middles: Floats = (centroids[1:] + centroids[:-1]) / 2
    return middles
