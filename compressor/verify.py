"""Check that a slimmed network is the masked one."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from compressor.cost import as_tensor
from compressor.graph import ChannelGraph, Keep
from compressor.masks import ChannelMasks

TOLERANCE = 1e-9
"""Largest difference in float64, relative to the largest output: rounding alone stays far below."""


class SlimError(RuntimeError):
    """A slimmed network doesn't compute what the masked one does: a fault in the channel graph."""


def slim_difference(
    model: nn.Module, graph: ChannelGraph, keep: Keep, slimmed: nn.Module, images: Tensor
) -> float:
    """Return max |masked(x) - slim(x)| / max |masked(x)| in float64 and eval mode.

    Args:
        model: the network before slimming.
        graph: its channel graph.
        keep: the classes that stayed.
        slimmed: what `slim` made of it.
        images: a few inputs, shape (N, C, H, W).
    """
    exact, small = _double(model), _double(slimmed)
    x = images.detach().cpu().double()
    masks = ChannelMasks(exact, graph)
    with torch.no_grad(), masks:
        masks.set(as_tensor(keep))
        expected = exact(x)
        found = small(x)
    return float((expected - found).abs().max() / expected.abs().max().clamp_min(1e-30))


def check_slim(
    model: nn.Module, graph: ChannelGraph, keep: Keep, slimmed: nn.Module, images: Tensor
) -> float:
    """Return `slim_difference`; raise SlimError where it is more than rounding."""
    difference = slim_difference(model, graph, keep, slimmed, images)
    if not difference <= TOLERANCE:
        raise SlimError(
            f"the slimmed network differs from the masked one by {difference:.1e} of its largest "
            f"output, allowed is {TOLERANCE:.0e}; the channel graph of this network is wrong"
        )
    return difference


def _double(model: nn.Module) -> nn.Module:
    return copy.deepcopy(model).cpu().double().eval()
