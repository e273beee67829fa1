"""Run a traced network on real numbers and on channel labels side by side."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx, nn

from compressor.graph.labels import FIXED, align, joint_shape, varying_axes
from compressor.graph.recorder import Recorder
from compressor.models.layers import ChannelPad
from compressor.placeholders import Constant, Nothing

# Leaf modules that symbolic tracing must not look into: our own, whose attributes the slimmer
# edits, and torchvision's stochastic depth, whose forward depends on train mode.
_LEAVES = (ChannelPad, Constant, Nothing)
_LEAF_NAMES = frozenset({"StochasticDepth", "DropPath", "FrozenBatchNorm2d"})


_MIXERS = (nn.modules.conv._ConvNd, nn.Linear)


class LeafTracer(fx.Tracer):
    """Symbolic tracer that stops at the modules the label rules know."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Return whether the module is one node of the graph."""
        known = isinstance(m, _LEAVES) or type(m).__name__ in _LEAF_NAMES
        return known or super().is_leaf_module(m, module_qualified_name)


class LabelInterpreter(fx.Interpreter):
    """Interpreter that carries a narrow label array beside every tensor.

    Attributes:
        recorder: what was found on the way.
        labels: node -> narrow label array, or a list or tuple of them, or None for what is no
            tensor.
        shapes: node -> shape of its tensor, for rules that must expand labels.
        scalars: node -> value of what is no tensor: sizes and the arithmetic on them.
    """

    def __init__(self, module: fx.GraphModule, recorder: Recorder) -> None:
        super().__init__(module, garbage_collect_values=True)
        self.recorder = recorder
        self.space = recorder.space
        self.labels: dict[fx.Node, Any] = {}
        self.shapes: dict[fx.Node, Any] = {}
        self.scalars: dict[fx.Node, Any] = {}

    def run_node(self, n: fx.Node) -> Any:
        """Run one node on numbers, then on labels."""
        from compressor.graph.function_rules import labels_of_node  # it needs this module's types

        result = super().run_node(n)
        self.shapes[n] = fx.node.map_aggregate(result, _shape_of)
        if not _holds_tensor(result):
            self.scalars[n] = result
        elif isinstance(result, Tensor):
            self.recorder.shapes[n] = result.shape
        self.labels[n] = labels_of_node(self, n, result)
        self._note_memory(n, result)
        return result

    def _note_memory(self, node: fx.Node, result: Any) -> None:
        """Activations, batch norm and views live in their input's memory once they are fused."""
        sources = node.all_input_nodes
        makes_tensor = node.op != "output" and isinstance(result, Tensor)
        if makes_tensor and (len(sources) != 1 or self._moves_numbers(node)):
            one_image = result[:1] if result.dim() else result
            self.recorder.allocate(node, self.labels[node], one_image.numel())
            return
        if sources:
            self.recorder.owners[node] = sources[0]

    def _moves_numbers(self, node: fx.Node) -> bool:
        """Return whether a node with one input makes a new tensor: size or channels change."""
        before, after = self.shapes[node.all_input_nodes[0]], self.shapes[node]
        if not isinstance(before, _Shape) or before.sizes.numel() != after.sizes.numel():
            return isinstance(before, _Shape)
        return node.op == "call_module" and isinstance(self.fetch_attr(str(node.target)), _MIXERS)

    def input_labels(self, node: fx.Node) -> list[Tensor]:
        """Return the labels of every tensor that the node reads."""
        found: list[Tensor] = []
        for argument in node.all_input_nodes:
            found.extend(_tensors_in(self.labels[argument]))
        return found

    def expanded(self, node: fx.Node) -> Any:
        """Return a node's labels in the full shape of its tensor (a list for several tensors)."""
        return _expand(self.labels[node], self.shapes[node])

    def fix_all(self, node: fx.Node, result: Any, name: str, reason: str) -> Any:
        """Fix everything that the node reads, and label what it makes as fixed."""
        for labels in self.input_labels(node):
            self.recorder.fix(name, labels, reason)
        return fixed_like(result)

    def pooling(self, node: fx.Node, result: Tensor) -> Any:
        """Pass channel labels through an operator that works inside each channel's plane."""
        labels = self.input_labels(node)[0]
        if any(axis > 1 for axis in varying_axes(labels)):
            return self.fix_all(node, result, node.name, "it pools over channels")
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
                self.space.fix(labels)
        if not matching:
            return fixed_like(result)
        united = matching[0].expand(joint_shape(matching))
        for labels in matching[1:]:
            self.space.unite(united, labels)
        return united


def fixed_like(result: Any) -> Any:
    """Return fixed labels for a tensor or a nest of tensors, None for anything else."""
    return fx.node.map_aggregate(
        result,
        lambda value: torch.full((1,) * value.dim(), FIXED) if isinstance(value, Tensor) else None,
    )


def _holds_tensor(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return any(_holds_tensor(entry) for entry in value)
    return isinstance(value, Tensor)


def _shape_of(value: Any) -> Any:
    # A list inside map_aggregate would be walked into; torch.Size is a tuple, so it is wrapped.
    return _Shape(value.shape) if isinstance(value, Tensor) else None


class _Shape:
    """A tensor's shape that `map_aggregate` doesn't take apart."""

    def __init__(self, sizes: torch.Size) -> None:
        self.sizes = sizes


def _tensors_in(labels: Any) -> list[Tensor]:
    if isinstance(labels, Tensor):
        return [labels]
    if isinstance(labels, (list, tuple)):
        return [tensor for entry in labels for tensor in _tensors_in(entry)]
    return []


def _pairs(labels: Any, shapes: Any) -> list[tuple[Tensor, torch.Size]]:
    if isinstance(labels, Tensor):
        return [(labels, shapes.sizes)]
    if isinstance(labels, (list, tuple)):
        return [
            pair
            for entry, shape in zip(labels, shapes, strict=True)
            for pair in _pairs(entry, shape)
        ]
    return []


def _expand(labels: Any, shapes: Any) -> Any:
    if isinstance(labels, Tensor):
        return labels.expand(shapes.sizes)
    if isinstance(labels, (list, tuple)):
        return type(labels)(
            _expand(entry, shape) for entry, shape in zip(labels, shapes, strict=True)
        )
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
