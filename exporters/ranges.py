"""From what the tensors of a network hold, over a stream of samples, to the range of each tensor.

The same for every format: a format only knows how to run its float file and hand over tensors.
Memory doesn't grow with the number of samples.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator

import numpy as np

from boards.parts import CalibrationMethod
from exporters.clipping import (
    BINS,
    Grid,
    Histogram,
    Range,
    entropy_range,
    mse_range,
    percentile_range,
)

AVERAGING = 0.01  # weight of the latest image, as in PyTorch's MovingAverageMinMaxObserver

SMALLEST_SCALE = 1e-9
"""A tensor that would need a smaller one holds nothing; `compressor.quantization.grid` agrees."""

SCALE_OF_ZEROS = 1e-6
"""XNNPACK wants input scale x weight scale / output scale below 256."""

Tensors = Iterable[tuple[str, np.ndarray]]
"""Name and values [images, ...], float, of each tensor for some images."""
Observe = Callable[[], Iterator[Tensors]]
"""Starts the calibration stream anew: the tensors for each few images in turn."""


def find_ranges(
    observe: Observe, method: CalibrationMethod, grid: Grid, exact: Collection[str] = ()
) -> dict[str, Range]:
    """Return (low, high) by tensor.

    minmax: the smallest and the largest value.
    moving-average: of the smallest and largest values of each image, in the stream's order, the
        latest one weighing `AVERAGING`.
    percentile, entropy, mse: the stream runs twice, for minima and maxima and then for a histogram
        of each tensor between them; see `exporters.clipping`.

    Values that aren't finite don't count. A tensor that is always 0, or next to it, gets a range
    all the same: over scales that are next to 0, LiteRT refuses a file or ends the process.

    Args:
        grid: what the ranges will be rounded to.
        exact: tensors that get their minimum and maximum by any method: clipped logits would tie.
    """
    found = _found_ranges(observe, method, grid, exact)
    return {name: _wide_enough(limits, grid) for name, limits in found.items()}


def _found_ranges(
    observe: Observe, method: CalibrationMethod, grid: Grid, exact: Collection[str]
) -> dict[str, Range]:
    if method == "moving-average":
        average = MovingAverage()
        extremes = _extremes(observe, average)
        return {**average.ranges, **{name: extremes.ranges[name] for name in exact}}
    ranges = _extremes(observe).ranges
    if method == "minmax":
        return ranges
    wanted = {name: limits for name, limits in ranges.items() if name not in exact}
    histograms = _histograms(observe, wanted, symmetric=method == "entropy")
    for name, histogram in histograms.items():
        ranges[name] = _within(_clipped(histogram, method, grid), ranges[name])
    return ranges


class RangeTracker:
    """Smallest and largest value of every tensor over a stream, in constant memory."""

    def __init__(self) -> None:
        self.ranges: dict[str, Range] = {}

    def update(self, name: str, low: float, high: float) -> None:
        """Widen the range of tensor `name` to hold [low, high]."""
        lowest, highest = self.ranges.get(name, (low, high))
        self.ranges[name] = (min(low, lowest), max(high, highest))


class MovingAverage:
    """Exponential moving average of minima and maxima; the first ones count whole."""

    def __init__(self) -> None:
        self.ranges: dict[str, Range] = {}

    def update(self, name: str, low: float, high: float) -> None:
        """Take the minimum and maximum of one more image."""
        before = self.ranges.get(name, (low, high))
        self.ranges[name] = (
            before[0] + AVERAGING * (low - before[0]),
            before[1] + AVERAGING * (high - before[1]),
        )


def _extremes(observe: Observe, average: MovingAverage | None = None) -> RangeTracker:
    """Run through the stream once; `average` is told each image's minimum and maximum as well."""
    tracker = RangeTracker()
    for tensors in observe():
        for name, values in tensors:
            lows, highs = _limits(values)
            tracker.update(name, float(lows.min()), float(highs.max()))
            if average is not None:
                for low, high in zip(lows, highs, strict=True):
                    average.update(name, float(low), float(high))
    return tracker


def _limits(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Smallest and largest finite value of each image, [images] both."""
    rows = values.reshape(len(values), -1)
    lows, highs = rows.min(1), rows.max(1)
    if not (np.isfinite(lows).all() and np.isfinite(highs).all()):
        finite = np.isfinite(rows)  # a border of -inf before a max pool
        lows = rows.min(1, initial=np.inf, where=finite)
        highs = rows.max(1, initial=-np.inf, where=finite)
    return lows, highs


def _histograms(
    observe: Observe, ranges: dict[str, Range], *, symmetric: bool
) -> dict[str, Histogram]:
    """Run through the stream once more. A tensor that hardly changes has nothing to clip."""
    found = {}
    for name, (low, high) in ranges.items():
        reach = max(-low, high)
        # In a narrower range float32 can't tell the edges of bins apart.
        if high - low > 2 * BINS * float(np.spacing(np.float32(reach))):
            found[name] = Histogram(-reach, reach) if symmetric else Histogram(low, high)
    for tensors in observe():
        for name, values in tensors:
            if name in found:
                found[name].add(values)
    return found


def _clipped(histogram: Histogram, method: str, grid: Grid) -> Range:
    if method == "percentile":
        return percentile_range(histogram)
    if method == "entropy":
        return entropy_range(histogram, grid)
    return mse_range(histogram, grid)


def _wide_enough(limits: Range, grid: Grid) -> Range:
    low, high = min(limits[0], 0.0), max(limits[1], 0.0)
    always_zero = high - low < grid.steps * SMALLEST_SCALE
    return (low, low + grid.steps * SCALE_OF_ZEROS) if always_zero else limits


def _within(clipped: Range, limits: Range) -> Range:
    """A search on symmetric limits may reach beyond the values on one side."""
    return max(clipped[0], limits[0]), min(clipped[1], limits[1])
