"""Cut dropped channels out of a network: a smaller dense module, no masks left."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from compressor.cut import cut_tensor, follow_layer, set_count
from compressor.graph import ChannelGraph, Keep, kept_indices
from compressor.graph.channel_graph import BranchEnd, Classes
from compressor.placeholders import Constant, Nothing, Window
from compressor.tied import share, shared_parameters


def slim(model: nn.Module, graph: ChannelGraph, keep: Keep) -> nn.Module:
    """Return a copy of a network without the dropped channels.

    In eval mode the result equals the network whose consumers see the dropped channels as zero
    (`masks.ChannelMasks`), up to rounding. It is the same module class, so train mode, dropout and
    stochastic depth work as before. A branch whose hidden channels are all dropped becomes an added
    constant. Parameters that modules share stay shared.

    Args:
        model: the network that `graph` was built from; it is left as it was.
        graph: its channel graph.
        keep: True for every class that stays, shape (graph.class_count,).

    Raises:
        ValueError: a group that can't be empty would be.
    """
    check_keep(graph, keep)
    slimmed = copy.deepcopy(model, _cut_anyway(model, graph, keep))
    dead = _empty_branch_modules(graph, keep)
    for name in dead.ends:
        _replace_end(slimmed, name, graph.branch_ends[name])
    for name in dead.nothing:
        _replace(slimmed, name, Nothing(Window.of(slimmed.get_submodule(name))))
    for name in dead.identities:
        _replace(slimmed, name, nn.Identity())
    for cut in graph.slices:
        module = slimmed.get_submodule(cut.module)
        if isinstance(module, Constant) and cut.tensor != "value":
            if (cut.tensor, cut.axis) == ("weight", 0):
                cut_tensor(module, "value", 1, kept_indices(cut.classes, keep))
        elif not isinstance(module, (Nothing, nn.Identity)):
            cut_tensor(module, cut.tensor, cut.axis, kept_indices(cut.classes, keep))
    for layer in graph.layers:
        follow_layer(slimmed.get_submodule(layer.module), layer.depthwise)
    for count in graph.counts:
        kept = len(kept_indices(count.classes, keep))
        module = slimmed.get_submodule(count.module)
        if not isinstance(module, (Nothing, nn.Identity)):
            set_count(module, count.attribute, kept)
    share(slimmed, shared_parameters(model))
    return slimmed


def _cut_anyway(model: nn.Module, graph: ChannelGraph, keep: Keep) -> dict[int, Any]:
    """The parameters that cutting replaces, as `copy.deepcopy` wants to be told of them.

    They need no copy before. A parameter that several modules have may be cut in one of them only.
    """
    owners: dict[int, int] = {}
    for _, parameter in model.named_parameters(remove_duplicate=False):
        owners[id(parameter)] = owners.get(id(parameter), 0) + 1
    found: dict[int, Any] = {}
    for cut in graph.slices:
        tensor = getattr(model.get_submodule(cut.module), cut.tensor, None)
        shorter = len(kept_indices(cut.classes, keep)) < len(cut.classes)
        if isinstance(tensor, nn.Parameter) and owners[id(tensor)] == 1 and shorter:
            found[id(tensor)] = tensor
    return found


def check_keep(graph: ChannelGraph, keep: Keep) -> None:
    """Raise ValueError where a keep set has the wrong length or empties what must not be empty."""
    if keep.shape != (graph.class_count,):
        raise ValueError(f"keep has shape {keep.shape}, the graph has {graph.class_count} classes")
    for group in graph.groups:
        if not group.removable and not keep[group.classes].any():
            raise ValueError(f"no channel is left in group '{group.name}'")


class _DeadModules:
    """Names of modules that an empty branch leaves without work."""

    def __init__(self) -> None:
        self.ends: list[str] = []
        self.nothing: list[str] = []
        self.identities: list[str] = []


def _empty_branch_modules(graph: ChannelGraph, keep: Keep) -> _DeadModules:
    dead = _DeadModules()
    empty = {
        number
        for group in graph.groups
        if group.removable and not keep[group.classes].any()
        for number in group.classes.tolist()
    }
    if not empty:
        return dead
    for layer in graph.layers:  # what a gate makes of nothing is nothing, too
        if layer.module in graph.swallowed and _all_in(layer.in_classes, empty):
            empty |= set(layer.out_classes.tolist())
    for layer in graph.layers:
        if _all_in(layer.out_classes, empty):
            dead.nothing.append(layer.module)
        elif layer.module in graph.branch_ends and _all_in(layer.in_classes, empty):
            dead.ends.append(layer.module)
    known = {layer.module for layer in graph.layers}
    for cut in graph.slices:
        if cut.module not in known and _all_in(cut.classes, empty):
            dead.identities.append(cut.module)
    return dead


def _all_in(classes: Classes, numbers: set[int]) -> bool:
    return len(classes) > 0 and set(classes.tolist()) <= numbers


def _replace(model: nn.Module, name: str, new: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, new)


def _replace_end(model: nn.Module, name: str, end: BranchEnd) -> None:
    """Put what a layer and the batch norms behind it make of zeros in their place."""
    layer = model.get_submodule(name)
    weight: Tensor = layer.weight  # type: ignore[assignment]
    channels = layer.out_channels if hasattr(layer, "out_channels") else weight.shape[0]
    bias = getattr(layer, "bias", None)
    value = weight.new_zeros(int(channels)) if bias is None else bias.detach()  # type: ignore[arg-type]
    value = value.reshape((1, -1) + (1,) * (weight.dim() - 2))
    for norm_name in end.norms:
        norm = model.get_submodule(norm_name)
        was_training = norm.training
        with torch.no_grad():
            value = norm.eval()(value)
        norm.train(was_training)
        _replace(model, norm_name, nn.Identity())
    _replace(model, name, Constant(value, Window.of(layer), end.added_in_place))
