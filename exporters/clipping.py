"""Where to clip a tensor, given the histogram of its values over all calibration samples."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

BINS = 4096
PERCENTILE = 99.99
MSE_CANDIDATES = 128  # clipping limits that are tried on each side
MSE_ROUNDS = 2  # of searching one side and then the other
ENTROPY_CHUNK = 128  # candidates at a time, to bound the memory of the search

Range = tuple[float, float]


@dataclass(frozen=True)
class Grid:
    """The integers that activations are rounded to.

    Attributes:
        bits: 2**bits integers.
        symmetric: zero in the middle, or wherever the range wants it.
    """

    bits: int = 8
    symmetric: bool = False

    @property
    def levels(self) -> int:
        return 2**self.bits

    @property
    def steps(self) -> int:
        """From the lowest value of a range to its highest; around the middle, -128 is beyond it."""
        return self.levels - (2 if self.symmetric else 1)


class Histogram:
    """Counts of values in `BINS` bins of equal width over fixed limits.

    Attributes:
        low, high: limits; a value outside of them isn't counted.
        counts: int64 [BINS].
    """

    def __init__(self, low: float, high: float) -> None:
        self.low, self.high = low, high
        self.counts = np.zeros(BINS, np.int64)

    def add(self, values: np.ndarray) -> None:
        """Count values of any shape."""
        self.counts += np.histogram(values, BINS, (self.low, self.high))[0]

    @property
    def edges(self) -> np.ndarray:
        """float64 [BINS + 1]."""
        return np.linspace(self.low, self.high, BINS + 1)


def percentile_range(histogram: Histogram, percentile: float = PERCENTILE) -> Range:
    """The limits that leave the same share of the values on either side, interpolated in a bin.

    Args:
        percentile: share of the values that lie inside, in percent.
    """
    cut = (100 - percentile) / 200
    counts = histogram.counts
    share = np.concatenate([[0], np.cumsum(counts)]) / counts.sum()  # [BINS + 1], below each edge
    edges = histogram.edges
    # of several edges with the same share below them, the one next to the values that are kept
    first = int(np.searchsorted(share, cut, side="right")) - 1
    last = int(np.searchsorted(share, 1 - cut, side="left"))
    low = np.interp(cut, share[first : first + 2], edges[first : first + 2])
    high = np.interp(1 - cut, share[last - 1 : last + 1], edges[last - 1 : last + 1])
    return float(low), float(high)


def entropy_range(histogram: Histogram, grid: Grid) -> Range:
    """The limits -t, t whose rounded distribution tells most of the original one.

    The reference P is the histogram between the limits, with all that lies outside put into the
    outermost bins. Q is the same histogram, without what lies outside, summed over each level of
    the grid and spread evenly over those of the level's bins that P has values in. t minimises
    KL(P || Q) = sum P log(P / Q). Source: Migacz, 8-bit inference with TensorRT, GTC 2017.
    onnxruntime's version puts what its division into levels leaves over into the last one.

    With at least as many levels as bins nothing is gained by clipping.

    Args:
        histogram: over symmetric limits.
    """
    edges, half = histogram.edges, BINS // 2
    smallest = grid.levels // 2  # bins on either side: one for each level
    if smallest >= half:
        return histogram.low, histogram.high
    widths = np.arange(smallest, half + 1)
    chunks = np.array_split(widths, -(-len(widths) // ENTROPY_CHUNK))
    divergence = np.concatenate([_divergences(histogram.counts, c, grid.levels) for c in chunks])
    best = int(widths[divergence.argmin()])
    return float(edges[half - best]), float(edges[half + best])


def _divergences(counts: np.ndarray, widths: np.ndarray, levels: int) -> np.ndarray:
    """KL(P || Q) for limits `widths` bins away from the middle; float64, inf where Q lacks a value.

    Within a level Q is constant, so all sums are differences of running sums.
    """
    half, total = len(counts) // 2, counts.sum()
    first, last = half - widths[:, None], half + widths[:, None]  # [candidates, 1]
    bounds = first + np.arange(levels + 1) * (last - first) // levels  # [candidates, levels + 1]
    running = np.concatenate([[0], np.cumsum(counts)])
    inside = np.diff(running[bounds])  # Q by level, [candidates, levels]
    below, above = running[first[:, 0]], total - running[last[:, 0]]
    reference = inside.copy()  # P by level
    reference[:, 0] += below
    reference[:, -1] += above
    occupied = np.diff(np.concatenate([[0], np.cumsum(counts > 0)])[bounds])
    lowest, highest = counts[first[:, 0]], counts[last[:, 0] - 1]  # the outermost bins
    occupied[:, 0] += (lowest == 0) & (below > 0)
    occupied[:, -1] += (highest == 0) & (above > 0)
    # sum of P log P over bins, the outermost ones with what was put into them
    own = np.concatenate([[0], np.cumsum(_x_log_x(counts))])
    entropy = own[last[:, 0]] - own[first[:, 0]]
    entropy += _x_log_x(lowest + below) - _x_log_x(lowest)
    entropy += _x_log_x(highest + above) - _x_log_x(highest)
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = np.log(inside / occupied)
        crossed = np.where(reference > 0, reference * spread, 0).sum(1)
        found: np.ndarray = (entropy - crossed) / total + np.log(inside.sum(1) / total)
    return np.where(np.isnan(found), np.inf, found)


def _x_log_x(values: np.ndarray) -> np.ndarray:
    return np.where(values > 0, values * np.log(np.maximum(values, 1)), 0.0)


def mse_range(histogram: Histogram, grid: Grid) -> Range:
    """The limits that minimise the mean squared error of rounding and clipping.

    One side at a time over `MSE_CANDIDATES` limits between zero and the outermost value.
    """
    centres = (histogram.edges[1:] + histogram.edges[:-1]) / 2
    used = histogram.counts > 0
    values, counts = centres[used], histogram.counts[used]
    low, high = min(histogram.low, 0.0), max(histogram.high, 0.0)
    shares = np.arange(1, MSE_CANDIDATES + 1) / MSE_CANDIDATES
    if grid.symmetric:
        limits = shares * max(-low, high)
        best = limits[_errors(values, counts, -limits, limits, grid).argmin()]
        return float(-best), float(best)
    lows, highs = low * shares, high * shares
    for _ in range(MSE_ROUNDS):
        high = highs[_errors(values, counts, np.full_like(highs, low), highs, grid).argmin()]
        low = lows[_errors(values, counts, lows, np.full_like(lows, high), grid).argmin()]
    return float(low), float(high)


def _errors(
    values: np.ndarray, counts: np.ndarray, lows: np.ndarray, highs: np.ndarray, grid: Grid
) -> np.ndarray:
    """Summed squared error for each pair of limits; float64 [candidates].

    The integers are those of the files: step (high - low) / grid.steps, zero among them.
    """
    found = np.empty(len(lows))
    for index, (low, high) in enumerate(zip(lows, highs, strict=True)):
        step = (high - low) / grid.steps
        if step == 0:
            found[index] = (counts * values**2).sum()
            continue
        smallest = -grid.levels // 2 if grid.symmetric else np.round(low / step)
        rounded = np.clip(np.round(values / step), smallest, smallest + grid.levels - 1)
        found[index] = (counts * (rounded * step - values) ** 2).sum()
    return found
