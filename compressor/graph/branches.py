"""Find groups that may become empty: hidden channels of a branch that is added to something."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import fx, nn

from compressor.graph.channel_graph import FIXED_CLASS, BranchEnd, Classes, Consumer, Layer
from compressor.graph.function_rules import keeps_channels_apart
from compressor.graph.interpreter import function_name
from compressor.graph.recorder import Recorder
from compressor.models.layers import ChannelPad

_ADDITIONS = frozenset({"add", "iadd"})
_IN_PLACE = ("add_", "__iadd__")
_MANY_CHANNELS = (
    *(nn.ChannelShuffle, nn.PixelShuffle, nn.PixelUnshuffle, ChannelPad),
    *(nn.LayerNorm, nn.GroupNorm),
)
_HANDS_ON = (nn.Identity, nn.Dropout, nn.Dropout2d)


@dataclass(frozen=True)
class Branches:
    """Branches that may be emptied.

    Attributes:
        removable_classes: classes that may all go.
        ends: consumers whose output becomes a constant when they do.
        swallowed: consumers inside the branch (a gate's layers) that vanish with it.
    """

    removable_classes: frozenset[int]
    ends: dict[str, BranchEnd]
    swallowed: frozenset[str]


def removable_branches(
    recorder: Recorder, consumers: tuple[Consumer, ...], layers: tuple[Layer, ...]
) -> Branches:
    """Return the branches whose emptiness leaves a constant that broadcasts into an addition.

    Only one operand of an addition may be emptied, and only channels that nobody else reads.
    """
    read = [consumer.classes for consumer in consumers]
    made = [layer.out_classes for layer in layers]
    class_count = 1 + max((int(c.max(initial=FIXED_CLASS)) for c in (*read, *made)), default=-1)
    # Classes that the same layers make and read are of one kind, which stands for all of them.
    kind_of = np.append(partition(class_count, [*made, *read]), FIXED_CLASS)

    def kinds(classes: Classes) -> set[int]:
        return set(np.unique(kind_of[classes]).tolist())

    makes = {layer.module: kinds(layer.out_classes) for layer in layers}
    readers: dict[int, set[str]] = defaultdict(set)
    for consumer in consumers:
        for kind in kinds(consumer.classes):
            readers[kind].add(consumer.module)
    makers = partition(class_count, [layer.out_classes for layer in layers if not layer.depthwise])
    taken: set[fx.Node] = set()
    removable: set[int] = set()
    ends: dict[str, BranchEnd] = {}
    swallowed: set[str] = set()
    for consumer in consumers:
        addition, end = _addition_after(recorder, consumer.module)
        hidden = kinds(consumer.classes)
        if addition is None or addition in taken or FIXED_CLASS in hidden:
            continue
        others = _readers_of(hidden, readers) - {consumer.module}
        # A gate's layers read the hidden channels too, and lead back to them.
        inner = {name for name in others if _leads_back(name, hidden, makes, readers)}
        if others - inner or hidden & makes.get(consumer.module, set()):
            continue
        # Channels of several layers side by side could be emptied apart from each other.
        if len(np.unique(makers[consumer.classes])) != 1:
            continue
        behind = {name for inner_name in inner for name in _readers_of(makes[inner_name], readers)}
        if not all(
            _works_on_one_channel(recorder, name) for name in {consumer.module} | inner | behind
        ):
            continue
        taken.add(addition)
        removable |= set(consumer.classes.tolist())
        ends[consumer.module] = end
        swallowed |= inner
    return Branches(frozenset(removable), ends, frozenset(swallowed))


def _addition_after(recorder: Recorder, module: str) -> tuple[fx.Node | None, BranchEnd]:
    """Follow batch norm and the like behind a layer to the addition that its output enters."""
    norms: list[str] = []
    calls = recorder.calls.get(module, [])
    node = calls[0] if len(calls) == 1 else None
    while node is not None and len(node.users) == 1:
        branch, (node,) = node, node.users
        if _is_addition(node):
            in_place = _is_in_place(node) and node.args[0] is branch
            others = [operand for operand in node.all_input_nodes if operand is not branch]
            # The constant broadcasts, so the other operand must have the full size.
            whole = len(others) == 1 and recorder.shapes.get(others[0]) == recorder.shapes[node]
            return (node if whole else None), BranchEnd(tuple(norms), in_place)
        behind = _module_of(recorder, node)
        if isinstance(behind, nn.modules.batchnorm._BatchNorm):
            norms.append(str(node.target))
            if len(recorder.calls[norms[-1]]) > 1:
                node = None
        elif not _hands_on(behind):
            node = None
    return None, BranchEnd((), False)


def _is_addition(node: fx.Node) -> bool:
    return node.op == "call_function" and function_name(node.target) in _ADDITIONS


def _is_in_place(node: fx.Node) -> bool:
    return getattr(node.target, "__name__", "") in _IN_PLACE


def _module_of(recorder: Recorder, node: fx.Node) -> nn.Module | None:
    return recorder.modules[str(node.target)] if node.op == "call_module" else None


def _hands_on(module: nn.Module | None) -> bool:
    if getattr(module, "inplace", False):
        return False  # it would write into the constant
    return isinstance(module, _HANDS_ON) or type(module).__name__ in ("StochasticDepth", "DropPath")


def partition(class_count: int, sets: Iterable[Classes]) -> NDArray[np.int64]:
    """Return a number for every class; equal where two classes are in the same of the sets."""
    numbers = np.zeros(class_count, dtype=np.int64)
    used = 0
    for classes in sets:
        inside = np.unique(classes[classes != FIXED_CLASS])
        if len(inside):
            _, split = np.unique(numbers[inside], return_inverse=True)
            numbers[inside] = used + 1 + split
            used = int(numbers.max())
    return numbers


def _readers_of(kinds: set[int], readers: dict[int, set[str]]) -> set[str]:
    return set().union(*(readers[kind] for kind in kinds))


def _works_on_one_channel(recorder: Recorder, reader: str) -> bool:
    """Return whether all operators before a reader also take the one channel of `Nothing`."""
    waiting, seen = list(recorder.calls[reader]), set()
    module = _module_of(recorder, waiting[0])
    if isinstance(module, nn.modules.conv._ConvTransposeNd):
        return False
    while waiting:
        for node in waiting.pop().all_input_nodes:
            if node in seen or node not in recorder.shapes:
                continue
            seen.add(node)
            if not _takes_one_channel(recorder, node):
                return False
            name = str(node.target)
            layer = recorder.layers.get(name) if node.op == "call_module" else None
            if layer is None or layer.depthwise:
                waiting.append(node)
    return True


def _takes_one_channel(recorder: Recorder, node: fx.Node) -> bool:
    if node.op == "call_module":
        module = _module_of(recorder, node)
        refused = (*_MANY_CHANNELS, nn.modules.conv._ConvTransposeNd)
        return not isinstance(module, refused)
    if node.op != "call_function":
        return False  # a free parameter keeps its channels
    name = function_name(node.target)
    if name in ("view", "reshape"):
        # (N, C) <-> (N, C, 1, 1), as gates have it
        shapes = [recorder.shapes[node], recorder.shapes[node.all_input_nodes[0]]]
        return all(shape.numel() == shape[0] * shape[1] for shape in shapes)
    return keeps_channels_apart(name)


def _leads_back(
    name: str, hidden: set[int], makes: dict[str, set[int]], readers: dict[int, set[str]]
) -> bool:
    """Return whether a layer feeds only layers that make nothing but hidden channels."""
    made = makes.get(name, set())
    next_readers = _readers_of(made, readers)
    return bool(next_readers) and all(makes.get(reader, set()) <= hidden for reader in next_readers)
