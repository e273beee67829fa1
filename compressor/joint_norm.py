"""Norms that take their statistics over channels, with some of the channels masked."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def is_joint_norm(module: nn.Module) -> bool:
    """Return whether a norm's statistics run over all channels: LayerNorm, GroupNorm of 1 group."""
    if isinstance(module, nn.LayerNorm):
        return len(module.normalized_shape) == 1
    return isinstance(module, nn.GroupNorm) and module.num_groups == 1


def masked_norm(module: Any, x: Tensor, mask: Tensor, axis: int) -> Tensor:
    """Normalize by mean and variance of the kept channels: what the slimmed norm does.

    Args:
        module: see `is_joint_norm`.
        x: its input, with channels along `axis`.
        mask: 1 keeps, 0 drops; shape broadcasts to that of x.

    Returns:
        The answer for all channels; that for dropped ones means nothing.
    """
    # LayerNorm (Ba et al. 2016, https://arxiv.org/abs/1607.06450, equation 3) works at each
    # position, GroupNorm (Wu & He 2018, https://arxiv.org/abs/1803.08494, equation 3) over all.
    axis = axis % x.dim()
    over = [axis] if isinstance(module, nn.LayerNorm) else list(range(1, x.dim()))
    weights = mask.expand_as(x)
    count = weights.sum(over, keepdim=True).clamp_min(1)
    mean = (x * weights).sum(over, keepdim=True) / count
    centred = x - mean
    variance = (centred.square() * weights).sum(over, keepdim=True) / count
    y = centred * torch.rsqrt(variance + module.eps)
    shape = [1] * x.dim()
    shape[axis] = -1
    if module.weight is not None:
        y = y * module.weight.reshape(shape)
    bias = getattr(module, "bias", None)
    return y if bias is None else y + bias.reshape(shape)
