"""Check that a slimmed network is the masked one."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from compressor.cost import as_tensor
from compressor.graph import ChannelGraph, Keep
from compressor.masks import ChannelMasks
from compressor.slim import slim
from compressor.training import Images

TOLERANCE = 1e-9
"""Largest difference in float64, relative to the largest output: rounding alone stays far below."""

FLOAT32_TOLERANCE = 1e-5
"""The same for a network in float32: constants of empty branches were rounded when it was made."""


_PROBE_IMAGES = 4


class SlimError(RuntimeError):
    """A slimmed network doesn't compute what the masked one does: a fault in the channel graph."""


def probe_images(images: Images) -> Tensor:
    """Return a few validation images to compare two networks on, shape (N <= 4, C, H, W)."""
    x, _ = next(iter(images.validation()))
    return x[:_PROBE_IMAGES]


def check_slim(
    model: nn.Module, graph: ChannelGraph, keep: Keep, slimmed: nn.Module, images: Tensor
) -> float:
    """Compare the masked network with slimmed ones: one slimmed in float64, and the given one.

    Both are compared in float64 arithmetic and eval mode.

    Args:
        model: the network before slimming.
        graph: its channel graph.
        keep: the classes that stayed.
        slimmed: what `slim` made of it.
        images: a few inputs, shape (N, C, H, W).

    Returns:
        max |masked(x) - slim(x)| / max |masked(x)| of the one slimmed in float64.

    Raises:
        SlimError: a difference is more than rounding.
    """
    exact, x = _double(model), images.detach().cpu().double()
    masks = ChannelMasks(exact, graph)
    with torch.no_grad(), masks:
        masks.set(as_tensor(keep))
        expected = exact(x)
    with torch.no_grad():
        difference = _relative(slim(exact, graph, keep)(x), expected)
        delivered = _relative(_double(slimmed)(x), expected)
    for found, allowed in ((difference, TOLERANCE), (delivered, FLOAT32_TOLERANCE)):
        if not found <= allowed:  # so that NaN fails
            raise SlimError(
                f"the slimmed network differs from the masked one by {found:.1e} of its largest "
                f"output, allowed is {allowed:.0e}; the channel graph of this network is wrong"
            )
    return difference


def _relative(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max().clamp_min(1e-30))


def _double(model: nn.Module) -> nn.Module:
    return copy.deepcopy(model).cpu().double().eval()
