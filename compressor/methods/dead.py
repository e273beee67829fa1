"""Channels that do nothing, and leave before any method has to choose.

A class of channels can go without any change of the network's answers where, at every layer that
reads it,

* all weights that read it are zero: *unread*. Proved by the weights, for every image;
* or what is read is zero: *silent*, as behind a ReLU that never opens. Observed on N images: exact
  for these, a well-founded guess for others;
* or what is read is always the same number: *constant*, as behind a batch norm of scale zero. Also
  observed. A linear layer, or a convolution that doesn't pad with zeros, turns it into a constant
  of its own, which its bias or the batch norm behind it takes over. Where the convolution pads, the
  border sees something else than the middle, so these channels stay.

Removing them is exact up to rounding in the first case, and in the others on every image on which
they are silent or constant; `find_dead` measures it on images that were not observed.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from compressor.calls import first_tensor
from compressor.compute import Compute
from compressor.difference import answers, relative_difference
from compressor.graph import ChannelGraph, Keep
from compressor.slim import slim
from compressor.training import Images

OBSERVED_BATCHES = 20

_SAME = 1e-12
"""Spread of a constant, relative to the layer's largest input: what rounding in float64 leaves."""

_CHECKED_IMAGES = 32


@dataclass(frozen=True)
class Dead:
    """The channels of a network that do nothing.

    Attributes:
        keep: classes that stay.
        folded: a copy of the network that answers as before once the others are cut out; until then
            it has their constants twice.
        unread, silent, constant: classes that went, by the first reason that holds.
        difference: largest change of an output on held-out images, relative to its largest value,
            in float64.
    """

    keep: Keep
    folded: nn.Module
    unread: int
    silent: int
    constant: int
    difference: float


def find_dead(
    model: nn.Module,
    graph: ChannelGraph,
    images: Images,
    compute: Compute,
    batches: int = OBSERVED_BATCHES,
) -> Dead:
    """Find unread, silent and constant channels; the network itself is left as it was.

    Args:
        graph: the channel graph of `model`.
        images: training images are observed, validation images are compared.
        batches: training batches to observe, the first ones of epoch 0.
    """
    reads = _Reads(model, graph, images, compute, batches)
    keep = reads.kept(reads.unread | reads.silent | reads.constant)
    folded = fold_constants(model, graph, keep, reads.lowest)
    x = next(iter(images.validation()))[0][:_CHECKED_IMAGES]
    gone = ~keep
    return Dead(
        keep=keep,
        folded=folded,
        unread=int((gone & reads.unread).sum()),
        silent=int((gone & reads.silent & ~reads.unread).sum()),
        constant=int((gone & ~reads.silent & ~reads.unread).sum()),
        difference=_difference(model, folded, graph, keep, x),
    )


def fold_constants(
    model: nn.Module, graph: ChannelGraph, keep: Keep, constants: Mapping[str, Tensor]
) -> nn.Module:
    """Return a copy in which readers don't miss the constants that dropped channels brought.

    Args:
        keep: classes that stay.
        constants: reader -> what every channel of its input always is, shape (channels,), float64;
            only dropped channels count.
    """
    folded = copy.deepcopy(model)
    norms = graph.norm_behind
    for consumer in graph.consumers:
        layer: Any = folded.get_submodule(consumer.module)
        if not _foldable(layer, norms.get(consumer.module)):
            continue
        gone = torch.from_numpy(~np.append(keep, True)[consumer.classes])
        shift = _answer(layer, constants[consumer.module] * gone)
        if layer.bias is not None:
            # Its own, also where it shared one with other layers.
            bias = layer.bias.detach() + shift.to(layer.bias)
            layer.bias = nn.Parameter(bias, requires_grad=layer.bias.requires_grad)
        else:
            mean: Any = folded.get_submodule(norms[consumer.module]).running_mean
            mean -= shift.to(mean)
    return folded


class _Reads:
    """What the layers of a network read, class by class.

    Attributes:
        unread, silent, constant: bool, shape (class_count,); constant means that it can be folded
            into every reader that isn't indifferent anyway.
        lowest: reader -> smallest value of every input channel, shape (channels,), float64.
    """

    def __init__(
        self,
        model: nn.Module,
        graph: ChannelGraph,
        images: Images,
        compute: Compute,
        batches: int,
    ) -> None:
        self._graph = graph
        self.lowest, highest = _observe(model, graph, images, compute, batches)
        norms = graph.norm_behind
        unread, silent, constant = {}, {}, {}
        for name, low in self.lowest.items():
            high, layer = highest[name], model.get_submodule(name)
            scale = float(torch.maximum(low.abs(), high.abs()).max())
            unread[name] = ~_weights_that_read(layer, len(low))
            silent[name] = unread[name] | ((low == 0) & (high == 0))
            same = (high - low <= _SAME * scale) & _foldable(layer, norms.get(name))
            constant[name] = silent[name] | same
        self.unread, self.silent = self._everywhere(unread), self._everywhere(silent)
        self.constant = self._everywhere(constant)

    def kept(self, gone: NDArray[np.bool_]) -> Keep:
        """Drop classes, but for one of each group that must not be empty."""
        keep: Keep = ~gone
        for group in self._graph.groups:
            if not group.removable and not keep[group.classes].any():
                keep[group.classes[0]] = True
        return keep

    def _everywhere(self, holds: Mapping[str, Tensor]) -> NDArray[np.bool_]:
        """Return for which classes something holds at every reader."""
        # Fixed channels, class -1, write to the last entry.
        result = np.ones(self._graph.class_count + 1, dtype=np.bool_)
        for consumer in self._graph.consumers:
            np.logical_and.at(result, consumer.classes, holds[consumer.module].numpy())
        for norm in self._graph.joint_norms:  # even a zero counts in their statistics
            result[norm.classes] = False
        return result[:-1]


def _observe(
    model: nn.Module, graph: ChannelGraph, images: Images, compute: Compute, batches: int
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return smallest and largest value of every input channel of every reader, in float64."""
    # Metal has no float64.
    device = torch.device("cpu") if compute.device.type == "mps" else compute.device
    exact = copy.deepcopy(model).to(device).double().eval()
    lowest: dict[str, Tensor] = {}
    highest: dict[str, Tensor] = {}

    def watch(name: str, axis: int) -> Any:
        def note(module: nn.Module, args: Any, kwargs: Any) -> None:
            x = first_tensor(args, kwargs)
            assert x is not None
            channels = x.detach().movedim(axis, 0).flatten(1)  # (channels, all else)
            low, high = (found.cpu() for found in channels.aminmax(dim=1))
            lowest[name] = torch.minimum(lowest.get(name, low), low)
            highest[name] = torch.maximum(highest.get(name, high), high)

        return note

    for consumer in graph.consumers:
        layer = exact.get_submodule(consumer.module)
        hook = watch(consumer.module, consumer.axis)
        layer.register_forward_pre_hook(hook, with_kwargs=True)
    with torch.no_grad():
        for x, _ in islice(images.train(0), max(batches, 1)):
            exact(x.to(device).double())
    return lowest, highest


def _weights_that_read(layer: nn.Module, channels: int) -> Tensor:
    """Return whether any weight of a layer reads an input channel, bool, shape (channels,)."""
    if isinstance(layer, nn.modules.conv._ConvTransposeNd):
        return (layer.weight.detach() != 0).flatten(1).any(dim=1).cpu()
    if not isinstance(layer, nn.modules.conv._ConvNd | nn.Linear):
        return torch.ones(channels, dtype=torch.bool)  # not known
    weight = layer.weight.detach()
    # (outputs, inputs of one group)
    nonzero = (weight != 0).reshape(*weight.shape[:2], -1).any(dim=2)
    groups = getattr(layer, "groups", 1)
    return nonzero.reshape(groups, -1, nonzero.shape[1]).any(dim=1).flatten().cpu()


def _foldable(layer: nn.Module, norm: str | None) -> bool:
    """Return whether constant inputs make constant outputs, and something can take them over."""
    if getattr(layer, "bias", None) is None and norm is None:
        return False
    if isinstance(layer, nn.Linear):
        return True
    if not isinstance(layer, nn.modules.conv._ConvNd):
        return False
    if isinstance(layer, nn.modules.conv._ConvTransposeNd):
        return False  # outputs between two inputs get less
    padded = layer.padding == "same" and any(size > 1 for size in layer.kernel_size)
    if not isinstance(layer.padding, str):
        padded = any(layer.padding)
    return not padded or layer.padding_mode != "zeros"


def _answer(layer: Any, constants: Tensor) -> Tensor:
    """Return what constant inputs (inputs,) add to the outputs of a layer, (outputs,), float64."""
    weight = layer.weight.detach().cpu().double()
    weight = weight.reshape(*weight.shape[:2], -1).sum(dim=2)  # (outputs, inputs of one group)
    groups = getattr(layer, "groups", 1)
    parts = weight.reshape(groups, -1, weight.shape[1]) @ constants.reshape(groups, -1, 1)
    return parts.flatten()


def _difference(
    model: nn.Module, folded: nn.Module, graph: ChannelGraph, keep: Keep, x: Tensor
) -> float:
    """Return max |before(x) - after(x)| / max |before(x)| of float64 copies, the worst output's."""
    before, after = (copy.deepcopy(m).cpu().double().eval() for m in (model, folded))
    x = x.cpu().double()
    return relative_difference(answers(slim(after, graph, keep), x), answers(before, x))
