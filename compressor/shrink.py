"""A network that gets smaller while it trains: channels are cut out, the optimizer goes on.

Classes keep the numbers that the whole network gave them, so that agents, costs and rankings need
not follow: `Shrinking.classes` says which of them are still there.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from compressor.graph import ChannelGraph, Keep, channel_graph, kept_indices
from compressor.slim import slim
from compressor.verify import SlimError, check_slim


@dataclass(frozen=True)
class Shrinking:
    """What is left of a network, and how it relates to the whole one.

    Attributes:
        model: the dense network as it is now.
        graph: its own channel graph.
        classes: number in the whole network's graph of each class of `graph`,
            shape (graph.class_count,).
        difference: largest relative difference between masked and slimmed of all cuts so far.
    """

    model: nn.Module
    graph: ChannelGraph
    classes: NDArray[np.int64]
    difference: float = 0.0

    @classmethod
    def whole(cls, model: nn.Module, graph: ChannelGraph) -> Shrinking:
        """Start with everything."""
        return cls(model, graph, np.arange(graph.class_count))

    def cut(self, keep: Keep, images: Tensor) -> tuple[nn.Module, float]:
        """Return a dense copy without the classes that a keep set drops, and how exact the cut is.

        Args:
            keep: shape (classes of the whole network,); classes that are gone already don't count.
            images: a few inputs that the cut is checked with, shape (N, C, H, W).

        Returns:
            The network, in the mode and on the device of `model`, and the largest relative
            difference between masked and slimmed of this cut and all before it.

        Raises:
            SlimError: the smaller network isn't the masked one.
        """
        mine = keep[self.classes]
        smaller = slim(self.model, self.graph, mine)
        difference = check_slim(self.model, self.graph, mine, smaller, images)
        return smaller, max(difference, self.difference)

    def without(self, keep: Keep, images: Tensor) -> Shrinking:
        """Cut, and go on with what is left. Arguments and errors are those of `cut`.

        Raises:
            CouplingError: the smaller network couples its channels otherwise, so that classes of
                the whole network no longer describe it.
        """
        smaller, difference = self.cut(keep, images)
        device = next(smaller.parameters()).device
        graph = channel_graph(smaller, images[:1].to(device))
        survivors = _surviving(self.graph, keep[self.classes], graph)
        return Shrinking(smaller, graph, self.classes[survivors], difference)


class CouplingError(SlimError):
    """A grouped convolution with one channel left per group is depthwise: it ties what it reads to
    what it makes."""


def _surviving(old: ChannelGraph, keep: Keep, new: ChannelGraph) -> NDArray[np.int64]:
    """Return for every class of the smaller network its number in the larger one.

    Both graphs cut the same axes of the same tensors, so each axis gives a part of the answer.
    """
    found = np.full(new.class_count, -1)
    new_cuts = {(cut.module, cut.tensor, cut.axis): cut.classes for cut in new.slices}
    for cut in old.slices:
        classes = new_cuts.get((cut.module, cut.tensor, cut.axis))
        kept = cut.classes[kept_indices(cut.classes, keep)]
        if classes is None or len(classes) != len(kept):
            continue  # the end of a branch that is empty now
        free = (classes >= 0) & (kept >= 0)
        known = found[classes[free]]
        if not ((known < 0) | (known == kept[free])).all():
            raise CouplingError(f"'{cut.module}' couples its channels otherwise than before")
        found[classes[free]] = kept[free]
    if (found < 0).any():
        raise CouplingError("the smaller network has channels of its own")
    return found


def carry_momentum(
    old: Shrinking, keep: Keep, new: Shrinking, before: torch.optim.SGD, after: torch.optim.SGD
) -> None:
    """Cut the momentum of SGD as the weights were cut, and copy its other settings.

    The momentum of all weights is itself a network of the same shape, so `slim` cuts it. Weights
    that don't train have none, and are no part of an optimizer.
    """
    shadow = copy.deepcopy(old.model)
    for parameter, twin in zip(old.model.parameters(), shadow.parameters(), strict=True):
        momentum = before.state.get(parameter, {}).get("momentum_buffer")
        with torch.no_grad():
            twin.copy_(torch.zeros_like(twin) if momentum is None else momentum)
    shadow = slim(shadow, old.graph, keep[old.classes])
    # The constant of a branch that is empty now is new: it has no momentum yet.
    known = dict(old.model.named_parameters())
    cut = {name: value for name, value in shadow.named_parameters() if name in known}
    for name, parameter in new.model.named_parameters():
        if name in cut and parameter.requires_grad:
            after.state[parameter]["momentum_buffer"] = cut[name].detach().clone()
    for source, target in zip(before.param_groups, after.param_groups, strict=True):
        target.update({k: v for k, v in source.items() if k != "params"})
