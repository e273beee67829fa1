"""Ranges of a float network's results over the calibration samples, by any method."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from compressor.quantization.calls import Calls, answer
from compressor.quantization.points import INPUT

IMAGES = 8
"""That run at a time where whole results are looked at: all of them are held at once."""

Calibration = Callable[[], Iterable[Tensor]]
"""Starts the stream of calibration batches, float32 (N, C, H, W), anew."""

Range = tuple[float, float]

Observe = Callable[[], Iterator[Iterable[tuple[str, np.ndarray]]]]
"""Starts the stream anew: name and values [images, ...] of results, for a few images in turn."""

FindRanges = Callable[[Observe, int, bool, Collection[str]], Mapping[str, Range]]
"""Given the stream, the bits of the grid, whether it is symmetric, and the names of results that
keep their minima and maxima; returns (low, high) by name."""


@torch.no_grad()
def extremes(
    network: nn.Module, points: Collection[int], calibration: Calibration
) -> dict[int, Range]:
    """Return the smallest and largest value of some results, by number; `INPUT` among them."""
    ranges: dict[int, Range] = {}
    for x in _batches(network, calibration):
        _widen(ranges, INPUT, x)
        with _Watching(points, lambda number, result: _widen(ranges, number, result)):
            network(x)
    return ranges


def ranges_by(
    find: FindRanges,
    network: nn.Module,
    points: Collection[int],
    exact: Collection[int],
    calibration: Calibration,
    bits: int,
    *,
    symmetric: bool,
) -> dict[int, Range]:
    """Return the ranges that a method finds for some results, by number; `INPUT` among them.

    Args:
        exact: results that keep their minima and maxima.
        bits, symmetric: of the grid that the ranges will be rounded to.
    """

    @torch.no_grad()
    def of_some(x: Tensor) -> list[tuple[str, np.ndarray]]:
        found = [(str(INPUT), _by_image(x, len(x)))]
        with _Watching(points, lambda n, result: found.append((str(n), _by_image(result, len(x))))):
            network(x)
        return found

    def observe() -> Iterator[list[tuple[str, np.ndarray]]]:
        for batch in _batches(network, calibration):
            yield from map(of_some, batch.split(IMAGES))

    names = [str(number) for number in exact]
    found = find(observe, bits, symmetric, names)
    return {int(name): limits for name, limits in found.items()}


class _Watching(Calls):
    """Shows some results, by number, to a function."""

    def __init__(self, points: Collection[int], show: Callable[[int, Tensor], None]) -> None:
        super().__init__()
        self._points, self._show = points, show

    def call(self, number: int, name: str, run: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        result = run(*args, **kwargs)
        x = answer(result)
        if number in self._points and x is not None:
            with torch._C.DisableTorchFunction():  # what is done here is no call of the network's
                self._show(number, x)
        return result


def _batches(network: nn.Module, calibration: Calibration) -> Iterator[Tensor]:
    device = next(network.parameters()).device
    return (x.to(device) for x in calibration())


def _by_image(x: Tensor, images: int) -> np.ndarray:
    """[images, ...]; what has no axis of images counts as one image's."""
    # A copy: the network may go on to change the result in place.
    values = x.detach().float().cpu().numpy().copy()
    return values if values.ndim and len(values) == images else values[None]


def _widen(ranges: dict[int, Range], number: int, x: Tensor) -> None:
    low, high = (float(v) for v in x.detach().aminmax())
    known = ranges.get(number, (low, high))
    ranges[number] = min(known[0], low), max(known[1], high)
