"""Rounding shifts the mean of what a layer answers; its bias takes the shift back.

Nagel et al. 2019, Data-Free Quantization Through Weight Equalization and Bias Correction,
https://arxiv.org/abs/1906.04721, section 4.2, in its empirical form (appendix D): the shift is
measured on samples.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from compressor.quantization.calls import Calls
from compressor.quantization.fake import FakeQuantized
from compressor.quantization.layers import Layer
from compressor.quantization.observing import Calibration


@torch.no_grad()
def correct_biases(fake: FakeQuantized, calibration: Calibration) -> dict[str, float]:
    """Take the mean error of every layer's answer off its bias, in place.

    Float and rounded network run side by side, a batch at a time. What is found at a layer is taken
    off at once, so that layers behind it see corrected inputs, as they will in the end. The bias
    then changes by the mean over all batches. Layers without a bias stay as they are.

    Args:
        calibration: batches of a dozen images or more: the mean of fewer says little.

    Returns:
        Layer -> largest change of its bias, in the units of the layer's answer.
    """
    layers = {layer.end: layer for layer in fake.layers.values() if layer.has_bias}
    device = next(fake.network.parameters()).device
    totals: dict[int, Tensor] = {}
    images = 0
    fake.eval()
    for x in calibration():
        x = x.to(device)
        with _Means(layers) as exact:
            fake.network(x)
        found = _Shifts(layers, exact.means)
        fake(x, at_layer=found)
        for number, shift in found.shifts.items():
            totals[number] = totals.get(number, 0) + shift * len(x)
        images += len(x)
    changes = {number: -total / images for number, total in totals.items()}
    for number, change in changes.items():
        layers[number].add_to_bias(change)
    return {layers[n].name: float(change.abs().max()) for n, change in changes.items()}


class _Means(Calls):
    """Keeps the mean of every channel of some layers' answers."""

    def __init__(self, layers: dict[int, Layer]) -> None:
        super().__init__()
        self._layers = layers
        self.means: dict[int, Tensor] = {}

    def call(self, number: int, name: str, run: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        result = run(*args, **kwargs)
        if number in self._layers:
            self.means[number] = _channel_means(result, self._layers[number].channel_axis)
        return result


class _Shifts:
    """Takes the difference to the wanted means off layers' answers, and keeps it."""

    def __init__(self, layers: dict[int, Layer], wanted: dict[int, Tensor]) -> None:
        self._layers, self._wanted = layers, wanted
        self.shifts: dict[int, Tensor] = {}

    def __call__(self, number: int, result: Tensor) -> Tensor:
        if number not in self._wanted:
            return result
        axis = self._layers[number].channel_axis
        shift = _channel_means(result, axis) - self._wanted[number]
        self.shifts[number] = shift
        shape = [1] * result.dim()
        shape[axis] = -1
        return result - shift.to(result.dtype).reshape(shape)


def _channel_means(x: Tensor, axis: int) -> Tensor:
    """Return float64 means of shape (channels,)."""
    others = [i for i in range(x.dim()) if i != axis % x.dim()]
    return x.double().mean(dim=others)
