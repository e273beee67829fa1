"""Carry channel labels beside every tensor while the network runs."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from compressor.graph.labels import FIXED, align, joint_shape, varying_axes
from compressor.graph.recorder import Recorder

_MIXERS = (nn.modules.conv._ConvNd, nn.Linear)


@dataclass(frozen=True)
class Counted:
    """What a number that the code computes depends on.

    Attributes:
        labels: channels whose number it depends on, shape (n,).
        exact: it is just the number of these channels.
        attributes: (module, attribute) of the integers that it is computed from.
    """

    labels: Tensor
    exact: bool
    attributes: tuple[tuple[str, str], ...] = ()

    @property
    def attribute(self) -> tuple[str, str] | None:
        """Where to set this number, if it is an attribute and nothing else."""
        alone = len(self.attributes) == 1 and self.exact and not self.labels.numel()
        return self.attributes[0] if alone else None


class LabelInterpreter:
    """Gets every operation with its result, and labels the result.

    Attributes:
        model: the network.
        recorder: what was found on the way.
        labels: node -> narrow label array, or a nest of them, or None for what is no tensor.
        shapes: node -> shape of its tensor, for rules that must expand labels.
        scalars: node -> value of what is no tensor: sizes and the arithmetic on them.
        counted: node of a scalar -> what it depends on.
    """

    def __init__(self, model: nn.Module, recorder: Recorder) -> None:
        self.model = model
        self.recorder = recorder
        self.space = recorder.space
        self.labels: dict[fx.Node, Any] = {}
        self.shapes: dict[fx.Node, Any] = {}
        self.scalars: dict[fx.Node, Any] = {}
        self.counted: dict[fx.Node, Counted] = {}
        self._sees_input: set[fx.Node] = set()

    def see(self, node: fx.Node, result: Any) -> None:
        """Label what a node made: a tensor or a nest of tensors (see `nested`)."""
        from compressor.graph.function_rules import labels_of_node  # it needs this module's types

        self.shapes[node] = _shapes(result)
        if isinstance(result, Tensor):
            self.recorder.shapes[node] = result.shape
        sources = node.all_input_nodes
        if node.op == "placeholder" or any(source in self._sees_input for source in sources):
            self._sees_input.add(node)
        if node.op == "call_module":
            self.recorder.modules[str(node.target)] = self.module_of(node)
        self.labels[node] = labels_of_node(self, node, result)
        self._note_memory(node, result)

    def see_size(self, node: fx.Node, source: fx.Node, axis: int, value: int) -> None:
        """Note a node that stands for a tensor's size along an axis."""
        labels, varying = self.labels[source], varying_axes(self.labels[source])
        self._scalar(node, value)
        if varying == [axis]:
            self.counted[node] = Counted(labels.reshape(-1), exact=True)
        elif axis in varying:
            self.counted[node] = Counted(labels.reshape(-1), exact=False)
        elif labels.numel() == 1 and value > 1 and axis == 1:
            # All channels carry one label, such as FIXED: their number is known, too.
            self.counted[node] = Counted(labels.reshape(-1).expand(value), exact=True)

    def see_attribute(self, node: fx.Node, module: str, attribute: str, value: int) -> None:
        """Note a node that stands for an integer attribute of a module."""
        self._scalar(node, value)
        nothing = torch.empty(0, dtype=torch.int64)
        self.counted[node] = Counted(nothing, exact=True, attributes=((module, attribute),))

    def see_derived(self, node: fx.Node, value: Any) -> None:
        """Note a node that stands for arithmetic on such numbers."""
        self._scalar(node, value)
        parts = [self.counted[n] for n in node.all_input_nodes if n in self.counted]
        if parts:
            self.counted[node] = Counted(
                torch.cat([part.labels for part in parts]),
                exact=False,
                attributes=tuple(key for part in parts for key in part.attributes),
            )

    def compare(self, left: fx.Node, right: Any) -> None:
        """Note that the code compares two numbers: the answer must not change with the channels."""
        nodes = [left, right] if isinstance(right, fx.Node) else [left]
        parts = [self.counted[node] for node in nodes if node in self.counted]
        if len(parts) == 2 and all(part.exact for part in parts):
            for one, other in (parts, reversed(parts)):
                equal = self.scalars[left] == self.scalars[right]
                if one.attribute and equal and other.labels.numel():
                    self.recorder.count(*one.attribute, other.labels)
                    return
            if parts[0].labels.shape == parts[1].labels.shape:
                first, second = (self.space.roots(part.labels) for part in parts)
                if bool((first == second).all()):
                    return
        for node in nodes:
            self.spoil(node, "the code compares a number of channels with another number")

    def spoil(self, node: fx.Node, reason: str, user: fx.Node | None = None) -> None:
        """Note that a number is used, by a node, in a way that doesn't allow it to change."""
        counted = self.counted.get(node)
        if counted is not None:
            self.recorder.fix(place(user or node), counted.labels, reason)
            self.recorder.spoiled.update(counted.attributes)

    def fix(self, node: fx.Node, reason: str) -> None:
        """Fix all channels of a node's tensor."""
        for labels in _tensors_in(self.labels[node]):
            self.recorder.fix(place(node), labels, reason)

    def module_of(self, node: fx.Node) -> nn.Module:
        """Return the module that a node calls."""
        return self.model.get_submodule(str(node.target))

    def sees_input(self, node: fx.Node) -> bool:
        """Return whether what a node made depends on the network's input."""
        return node in self._sees_input

    def _scalar(self, node: fx.Node, value: Any) -> None:
        self.scalars[node] = value
        self.labels[node], self.shapes[node] = None, None

    def _note_memory(self, node: fx.Node, result: Any) -> None:
        """Activations, batch norm and views live in their input's memory once they are fused."""
        sources = [source for source in node.all_input_nodes if source not in self.scalars]
        makes_tensor = node.op != "output" and isinstance(result, Tensor)
        if makes_tensor and (len(sources) != 1 or self._moves_numbers(node, sources[0])):
            one_image = result[:1] if result.dim() else result
            self.recorder.allocate(node, self.labels[node], one_image.numel())
            return
        if sources:
            self.recorder.owners[node] = sources[0]

    def _moves_numbers(self, node: fx.Node, source: fx.Node) -> bool:
        """Return whether a node with one input makes a new tensor: size or channels change."""
        before, after = self.shapes[source], self.shapes[node]
        if not isinstance(before, _Shape) or before.sizes.numel() != after.sizes.numel():
            return isinstance(before, _Shape)
        return node.op == "call_module" and isinstance(self.module_of(node), _MIXERS)

    def input_labels(self, node: fx.Node) -> list[Tensor]:
        """Return the labels of every tensor that the node reads."""
        found: list[Tensor] = []
        for argument in node.all_input_nodes:
            found.extend(_tensors_in(self.labels[argument]))
        return found

    def shape(self, node: fx.Node) -> torch.Size:
        """Return the shape of a node's tensor."""
        shape = self.shapes[node]
        assert isinstance(shape, _Shape)
        return shape.sizes

    def expanded(self, node: fx.Node) -> Any:
        """Return a node's labels in the full shape of its tensor (a tuple for several tensors)."""
        return _expand(self.labels[node], self.shapes[node])

    def fix_all(self, node: fx.Node, result: Any, reason: str) -> Any:
        """Fix everything that the node reads, and label what it makes as fixed."""
        for labels in self.input_labels(node):
            self.recorder.fix(place(node), labels, reason)
        for source in node.all_input_nodes:
            self.spoil(source, reason, node)
        return fixed_like(result)

    def pooling(self, node: fx.Node, result: Any) -> Any:
        """Pass channel labels through an operator that works inside each channel's plane."""
        labels = self.input_labels(node)[0]
        if any(axis > 1 for axis in varying_axes(labels)):
            return self.fix_all(node, result, "it pools over channels")
        if isinstance(result, tuple):  # max pooling with indices
            return tuple(labels for _ in result)
        return labels

    def elementwise(self, node: fx.Node, result: Tensor) -> Tensor:
        """Unite the labels of the operands position by position; broadcast axes don't unite."""
        rank = result.dim()
        operands = [
            (align(labels, rank), shape)
            for argument in node.all_input_nodes
            for labels, shape in _pairs(self.labels[argument], self.shapes[argument])
        ]
        matching = [
            labels for labels, shape in operands if not _broadcasts(labels, shape, operands)
        ]
        for labels, shape in operands:
            if _broadcasts(labels, shape, operands):
                # One value gates many channels (or one bias serves them all): it has to stay.
                self.recorder.fix(place(node), labels, "it serves many channels at once")
        if not matching:
            return fixed_like(result)
        united = matching[0].expand(joint_shape(matching))
        for labels in matching[1:]:
            self.space.unite(united, labels)
        return united


def function_name(function: Any) -> str:
    """Return the name of a function, tensor method or tensor property, in place or not."""
    name = getattr(function, "__name__", "")
    if name == "__get__":  # of a property
        name = function.__self__.__name__
    return str(name).strip("_")  # add_, __add__ and add mean the same to labels


def nested(value: Any) -> Any:
    """Return tensors in tuples and dicts, whatever classes hold them; None for all else."""
    if isinstance(value, Tensor):
        return value
    if isinstance(value, (tuple, list)):
        return tuple(nested(entry) for entry in value)
    if isinstance(value, dict):
        return {key: nested(entry) for key, entry in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: nested(getattr(value, f.name)) for f in dataclasses.fields(value)}
    return None


def fixed_like(result: Any) -> Any:
    """Return fixed labels for a tensor or a nest of tensors, None for anything else."""
    if isinstance(result, Tensor):
        return torch.full((1,) * result.dim(), FIXED)
    if isinstance(result, tuple):
        return tuple(fixed_like(entry) for entry in result)
    if isinstance(result, dict):
        return {key: fixed_like(entry) for key, entry in result.items()}
    return None


class _Shape:
    """A tensor's shape, told apart from a tuple of results."""

    def __init__(self, sizes: torch.Size) -> None:
        self.sizes = sizes


def place(node: fx.Node) -> str:
    """Return the name under which a node is reported: its module's, and the operator."""
    if node.op in ("call_module", "get_attr"):
        return str(node.target) or "the network"
    if node.op == "output":
        return "output"
    module = node.meta.get("module", "")
    name = function_name(node.target)
    return f"{module}.{name}" if module else name


def _shapes(value: Any) -> Any:
    if isinstance(value, Tensor):
        return _Shape(value.shape)
    if isinstance(value, tuple):
        return tuple(_shapes(entry) for entry in value)
    if isinstance(value, dict):
        return {key: _shapes(entry) for key, entry in value.items()}
    return None


def _tensors_in(labels: Any) -> list[Tensor]:
    if isinstance(labels, Tensor):
        return [labels]
    if isinstance(labels, dict):
        labels = tuple(labels.values())
    if isinstance(labels, tuple):
        return [tensor for entry in labels for tensor in _tensors_in(entry)]
    return []


def _pairs(labels: Any, shapes: Any) -> list[tuple[Tensor, torch.Size]]:
    if isinstance(labels, Tensor):
        return [(labels, shapes.sizes)]
    if isinstance(labels, tuple):
        return [
            pair
            for entry, shape in zip(labels, shapes, strict=True)
            for pair in _pairs(entry, shape)
        ]
    return []


def _expand(labels: Any, shapes: Any) -> Any:
    if isinstance(labels, Tensor):
        return labels.expand(shapes.sizes)
    if isinstance(labels, tuple):
        return tuple(_expand(entry, shape) for entry, shape in zip(labels, shapes, strict=True))
    return labels


def _broadcasts(
    labels: Tensor, shape: torch.Size, operands: list[tuple[Tensor, torch.Size]]
) -> bool:
    """Return whether an operand has size 1 on an axis where another one carries several labels."""
    rank = labels.dim()
    sizes = (1,) * (rank - len(shape)) + tuple(shape)
    return any(
        sizes[axis] == 1 and other.shape[axis] > 1 for other, _ in operands for axis in range(rank)
    )
