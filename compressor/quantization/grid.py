"""Rounding to integer grids, with the straight-through gradient.

The gradient of a rounded value is 1 inside the grid's range and 0 outside (Bengio et al. 2013,
https://arxiv.org/abs/1308.3432; Jacob et al. 2018, https://arxiv.org/abs/1712.05877, section 3).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_SMALLEST_SCALE = 1e-9


@dataclass(frozen=True)
class Grid:
    """One scale for a whole tensor: real = scale * (integer - zero_point).

    Attributes:
        scale: step between neighbours.
        zero_point: integer that stands for 0.
        low, high: smallest and largest integer.
    """

    scale: float
    zero_point: int
    low: int
    high: int

    @classmethod
    def of_range(cls, low: float, high: float, bits: int, *, symmetric: bool) -> Grid:
        """Return the grid that holds [low, high] and 0.

        Asymmetric: scale = (high - low) / (2**bits - 1), zero point = qmin - round(low / scale),
        the rule of ONNX QuantizeLinear and of TFLite. Integers count from 0 here; TFLite's are
        2**(bits - 1) lower, which is the same grid.

        Symmetric: scale = max(-low, high) / (2**(bits - 1) - 1), zero point 0; in unsigned integers
        files have 2**(bits - 1). The lowest integer is for what lies outside of the range.

        Args:
            low, high: smallest and largest real value that was seen.
        """
        low, high = min(low, 0.0), max(high, 0.0)
        if symmetric:
            limit = 2 ** (bits - 1) - 1
            return cls(max(max(-low, high) / limit, _SMALLEST_SCALE), 0, -limit - 1, limit)
        steps = 2**bits - 1
        scale = max((high - low) / steps, _SMALLEST_SCALE)
        return cls(scale, round(-low / scale), 0, steps)

    def rounded(self, x: Tensor) -> Tensor:
        """Return the nearest values of the grid, in x's shape and dtype."""
        found = torch.fake_quantize_per_tensor_affine(
            x.float(), self.scale, self.zero_point, self.low, self.high
        )
        return found.to(x.dtype)


def weight_scales(weight: Tensor, limit: int, axis: int | None) -> Tensor:
    """Return the scales of a weight's symmetric grid, which reaches to its largest value.

    Args:
        limit: largest integer of the grid.
        axis: axis of the output channels, each with a scale of its own; None for one scale.

    Returns:
        Shape (output channels,) or (1,), without gradient.
    """
    sizes = weight.detach().abs()
    others = [i for i in range(weight.dim()) if i != axis]
    largest = sizes.amax().reshape(1) if axis is None else sizes.amax(dim=others)
    return (largest / limit).clamp_min(_SMALLEST_SCALE)


def rounded_weight(weight: Tensor, scales: Tensor, limit: int, axis: int | None) -> Tensor:
    """Return a weight in float32, rounded to the grid of `weight_scales`."""
    zeros = torch.zeros(len(scales), dtype=torch.int32, device=weight.device)
    if axis is None:
        return torch.fake_quantize_per_tensor_affine(weight, scales, zeros, -limit, limit)
    return torch.fake_quantize_per_channel_affine(weight, scales, zeros, axis, -limit, limit)


def asymmetric_weight(weight: Tensor, limit: int, axis: int | None) -> Tensor:
    """Return a weight in float32, rounded to the integers from 0 to 2 limit + 1 and a zero point.

    The grid holds 0 and reaches from the smallest to the largest value, as `Grid.of_range` has it.

    Args:
        axis: of the output channels, each with a grid of its own; None for one grid.
    """
    values, steps = weight.detach(), 2 * limit + 1
    others = [i for i in range(weight.dim()) if i != axis]
    low = values.amin(dim=others).reshape(-1).clamp_max(0)
    high = values.amax(dim=others).reshape(-1).clamp_min(0)
    scales = ((high - low) / steps).clamp_min(_SMALLEST_SCALE)
    zeros = (-low / scales).round().int()
    if axis is None:
        return torch.fake_quantize_per_tensor_affine(weight, scales, zeros, 0, steps)
    return torch.fake_quantize_per_channel_affine(weight, scales, zeros, axis, 0, steps)


def rounded_bias(bias: Tensor, steps: Tensor) -> Tensor:
    """Return a bias in whole steps, with the gradient of the bias itself.

    Args:
        steps: shape of the bias, or (1,).
    """
    return bias + ((bias / steps).round() * steps - bias).detach()
