"""Mixing a tensor with its channels' means by a mask, at the price of few passes over memory.

Masked training is bound by memory on small networks: what `torch.lerp` and its backward do in
seven passes over a feature map costs half as much as the convolution behind it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from compressor import ranks

_IMAGES, _VALUES = 16, 4096
"""A channel's mean is taken over at least so many images and values of a batch, where it has
them."""

_NARROW = 32
"""Channels below which pointwise loops over channels-last maps are too short to be fast."""


def blend(
    x: Tensor, mask: Tensor, mean: Tensor | None = None, taught_images: int | None = None
) -> Tensor:
    """Return mask * x + (1 - mask) * mean, with gradients for x and the mask.

    Args:
        x: any shape.
        mask: float, broadcasts to x: 1 keeps, 0 replaces.
        mean: broadcasts to x, a constant; zero where it is None.
        taught_images: the mask's gradient is that of its first rows alone, and zero in the others;
            all of them by default. A mask that is shared by all images learns from all.
    """
    result: Tensor = _Blend.apply(x, mask, mean, taught_images)
    return result


def channel_means(x: Tensor, axis: int, share: ranks.Share | None = None) -> Tensor:
    """Return the mean of every channel over the first images of a batch, without gradient.

    Args:
        x: shape (N, ...) with channels at `axis`.
        share: of the batch that x is; the whole one where it is None.

    Returns:
        As many dimensions as x, 1 everywhere but at `axis`.
    """
    per_image = x[0].numel() // max(x.shape[axis], 1)
    images = max(_IMAGES, math.ceil(_VALUES / max(per_image, 1)))
    others = [i for i in range(x.dim()) if i != axis % x.dim()]
    if share is None or share.parts == 1:
        return x.detach()[:images].mean(dim=others, keepdim=True)
    own = x.detach()[: share.first(images)].to(torch.promote_types(x.dtype, torch.float32))
    sums = ranks.added(own.sum(others, keepdim=True))
    return (sums / (min(images, share.images) * per_image)).to(x.dtype)


class _Blend(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, mask: Tensor, mean: Tensor | None, taught_images: int | None
    ) -> Tensor:
        mask = mask.to(x.dtype)
        ctx.save_for_backward(x, mask, mean)
        ctx.taught = len(x) if taught_images is None or len(mask) == 1 else taught_images
        # Early in a search most layers are still whole. Asking would make a GPU wait.
        ctx.whole = mask.device.type == "cpu" and bool((mask == 1).all())
        if ctx.whole:
            return x.view_as(x)
        if mean is None:
            return _pointwise(torch.mul, x, mask)
        return _pointwise(_add_product, x, mask, mean * (1 - mask))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor | None, Tensor | None, None, None]:
        (gradient,) = gradients
        x, mask, mean = ctx.saved_tensors
        of_x, of_mask = ctx.needs_input_grad[:2]
        to_mask = _to_mask(gradient, x, mask, mean, ctx.taught) if of_mask else None
        if of_x and not ctx.whole:
            gradient = _pointwise(torch.mul, gradient, mask)
        return gradient if of_x else None, to_mask, None, None


def _pointwise(function: Callable[..., Tensor], x: Tensor, *factors: Tensor) -> Tensor:
    """Return function(x, *factors), where the factors broadcast to x.

    A factor per channel makes the inner loop over channels-last maps as short as there are
    channels; repeated along a row of pixels it is twice as fast for 16 of them.
    """
    narrow = x.dim() == 4 and x.shape[1] < _NARROW
    if not (
        narrow
        and x.is_contiguous(memory_format=torch.channels_last)
        and all(factor.shape[2:] == (1, 1) for factor in factors)
    ):
        return function(x, *factors)
    _, channels, _, width = x.shape
    rows = (f.permute(0, 2, 3, 1).expand(-1, -1, width, -1).flatten(2) for f in factors)
    result = function(x.permute(0, 2, 3, 1).flatten(2), *rows)
    return result.unflatten(2, (width, channels)).permute(0, 3, 1, 2)


def _add_product(x: Tensor, mask: Tensor, rest: Tensor) -> Tensor:
    return torch.addcmul(rest, x, mask)


def _to_mask(gradient: Tensor, x: Tensor, mask: Tensor, mean: Tensor | None, taught: int) -> Tensor:
    rows = mask[:taught]
    gradient, x = gradient[:taught], x[:taught]
    found = _reduced(gradient * x, rows)
    if mean is not None:
        found = found - mean * _reduced(gradient, rows)
    if len(rows) == len(mask):
        return found
    return torch.cat((found, found.new_zeros(len(mask) - len(rows), *found.shape[1:])))


def _reduced(values: Tensor, like: Tensor) -> Tensor:
    """Add up over the dimensions along which a mask was broadcast, in float32 at the least."""
    added = [i for i, size in enumerate(like.shape) if size == 1 and values.shape[i] != 1]
    # Not `sum(dtype=...)`, which copies everything first; sums accumulate in float32 anyway.
    total = values.sum(dim=added, keepdim=True) if added else values
    return total.to(torch.promote_types(values.dtype, torch.float32))
