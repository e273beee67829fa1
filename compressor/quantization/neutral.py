"""Batch norms folded into convolutions without changing the module tree.

Files hold convolutions with their batch norms folded in, so that is what has to be rounded while
training. A norm with mean 0, variance 1 and scale 1 is a bias and no more: the network stays an
instance of its own class, saves and exports as before, and its convolutions are the file's.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from compressor.quantization.points import FoldedNorm


def fold_norms(model: nn.Module, pairs: Iterable[FoldedNorm]) -> None:
    """Fold batch norms in place: each keeps a bias that learns, and nothing else does.

    The network computes what it did before, up to rounding, in eval mode.
    """
    for pair in pairs:
        layer, norm = model.get_submodule(pair.layer), model.get_submodule(pair.norm)
        assert isinstance(norm, nn.BatchNorm2d)
        _fold(layer, norm)


@torch.no_grad()
def _fold(layer: nn.Module, norm: nn.BatchNorm2d) -> None:
    weight, bias = layer.get_parameter("weight"), layer._parameters.get("bias")
    mean, variance = norm.get_buffer("running_mean"), norm.get_buffer("running_var")
    factor = (variance.double() + norm.eps).rsqrt()
    if norm.affine:
        factor = factor * norm.weight.double()
    shift = -mean.double()
    if bias is not None:
        shift = shift + bias.double()
        bias.zero_()
        bias.requires_grad_(False)
    shift = shift * factor
    weight.mul_(factor.reshape(-1, *(1,) * (weight.dim() - 1)).to(weight.dtype))
    mean.zero_()
    variance.fill_(1 - norm.eps)
    if norm.affine:
        norm.bias.copy_(norm.bias + shift)
        norm.weight.fill_(1.0)
        norm.weight.requires_grad_(False)
    else:
        mean.copy_(-shift)
