"""Where the Q/DQ pairs stand decides what runs on integers; each runtime has its own taste.

A pair is QuantizeLinear -> DequantizeLinear with the same scale and zero point.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

import numpy as np

from exporters.onnx_tidy import constant_arrays, drop_unused_constants

if TYPE_CHECKING:
    import onnx

DATA_MOVERS = ("Slice", "Pad")
LINEAR = ("Gemm", "MatMul")
ACTIVATIONS = ("Relu", "Clip", "LeakyRelu")
LEFT_TO_PAIRS = ("Relu", "Clip")
"""Activations that onnxruntime's quantizer leaves to the pair behind them, whose range clips."""


def clipped_tensors(source: onnx.ModelProto) -> frozenset[str]:
    """Names of what activations make that may be a pair's job after quantization.

    The layer in front takes over the name; the pair behind it has to stay.

    Args:
        source: the float graph that is quantized.
    """
    made = (node.output[0] for node in source.graph.node if node.op_type in LEFT_TO_PAIRS)
    return frozenset(made)


class Graph:
    """Producers and consumers of a graph, rebuilt after each rewrite."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.constants = constant_arrays(model)
        self.refresh()

    def refresh(self) -> None:
        graph = self.model.graph
        self.outputs = {output.name for output in graph.output}
        self.producer = {name: node for node in graph.node for name in node.output}
        self.consumers: dict[str, list[onnx.NodeProto]] = {}
        for node in graph.node:
            for name in node.input:
                self.consumers.setdefault(name, []).append(node)

    def add_constant(self, name: str, value: np.ndarray | float) -> str:
        """Add an initializer, float32 unless it has integers; returns its name.

        Raises:
            ValueError: there is one of this name.
        """
        from onnx import numpy_helper

        if name in self.constants:
            raise ValueError(f"there is a constant {name!r} already")
        array = np.asarray(value)
        self.constants[name] = array.astype(array.dtype if array.dtype.kind == "i" else np.float32)
        initializer = numpy_helper.from_array(self.constants[name], name)
        self.model.graph.initializer.append(initializer)
        return name

    def sole_consumer(self, name: str) -> onnx.NodeProto | None:
        """The one node that reads tensor `name`, where nothing else does."""
        readers = self.consumers.get(name, [])
        return readers[0] if len(readers) == 1 and name not in self.outputs else None

    def source(self, name: str, op_type: str) -> onnx.NodeProto | None:
        """The node that makes tensor `name`, where it is an `op_type`."""
        node = self.producer.get(name)
        return node if node is not None and node.op_type == op_type else None

    def same_scale(self, one: onnx.NodeProto, other: onnx.NodeProto) -> bool:
        """True where two Q or DQ nodes have equal scale and zero point."""
        values = [[self.constants.get(name) for name in n.input[1:3]] for n in (one, other)]
        return all(
            a is not None and b is not None and np.array_equal(a, b)
            for a, b in zip(*values, strict=True)
        )

    def sweep(self) -> None:
        """Remove nodes whose results nobody reads, then rebuild."""
        nodes = self.model.graph.node
        while True:
            self.refresh()
            dead = [
                index
                for index, node in enumerate(nodes)
                if not any(o in self.consumers or o in self.outputs for o in node.output)
            ]
            if not dead:
                break
            for index in reversed(dead):
                del nodes[index]
        drop_unused_constants(self.model)


def place_for_onnxruntime(model: onnx.ModelProto, clipped: Collection[str] = ()) -> None:
    """Slices and zero pads move bytes without leaving integers; logits leave as float.

    onnxruntime fuses convolutions, additions and pools between pairs into integer kernels, but
    a Pad between pairs stays float: dequantize, pad, quantize again.

    Args:
        clipped: as `clipped_tensors` returns them.
    """
    graph = Graph(model)
    for node in [node for node in model.graph.node if node.op_type in DATA_MOVERS]:
        _move_integers(graph, node)
    for node in [node for node in model.graph.node if node.op_type == "Mul"]:
        if node.output[0] not in clipped:
            _absorb_factor(graph, node)
    _bare_logits(graph, clipped)
    graph.sweep()


def place_for_tensorrt(model: onnx.ModelProto, clipped: Collection[str] = ()) -> None:
    """Pairs at the inputs of weighted layers and at one input of a residual addition.

    TensorRT fuses Conv + Add + Relu where the convolution's own output is not quantized and the
    other branch is; a pair between Conv and Relu breaks the fusion. Source: NVIDIA TensorRT
    developer guide, recommendations on the placement of Q/DQ layers.
    """
    graph = Graph(model)
    for node in list(model.graph.node):
        if node.op_type in ACTIVATIONS:
            _drop_pair_before(graph, node, node.input[0])
    for node in list(model.graph.node):
        if node.op_type == "Add":
            _free_one_branch(graph, node)
    _bare_logits(graph, clipped)
    graph.sweep()


def place_for_float_kernels(model: onnx.ModelProto, clipped: Collection[str] = ()) -> None:
    """All pairs stay but the one behind the logits: what rounds is the tensor, not the kernel."""
    graph = Graph(model)
    _bare_logits(graph, clipped)
    graph.sweep()


def _move_integers(graph: Graph, node: onnx.NodeProto) -> None:
    """DQ -> node -> Q becomes the node alone, on integers; a zero pad pads the zero point."""
    before = graph.source(node.input[0], "DequantizeLinear")
    after = graph.sole_consumer(node.output[0])
    if before is None or after is None or after.op_type != "QuantizeLinear":
        return
    if not graph.same_scale(before, after):
        return
    if node.op_type == "Pad":
        value = graph.constants.get(node.input[2]) if len(node.input) > 2 else np.zeros(())
        if value is None or value.any():
            return
        del node.input[2:]
        node.input.append(before.input[2])
    node.input[0] = before.input[0]
    node.output[0] = after.output[0]
    after.output[0] = f"{node.output[0]}_unused"
    graph.refresh()


def _absorb_factor(graph: Graph, product: onnx.NodeProto) -> None:
    """A product with a positive constant between pairs: the same integers with another scale."""
    data, factor = (graph.source(name, "DequantizeLinear") for name in product.input)
    quantize = graph.sole_consumer(product.output[0])
    if data is None or factor is None or quantize is None or quantize.op_type != "QuantizeLinear":
        return
    stored, scale, zero_point = (graph.constants.get(name) for name in factor.input)
    if stored is None or scale is None or zero_point is None or stored.size != 1:
        return
    value = float((stored.astype(np.int32) - zero_point.astype(np.int32)).item() * scale.item())
    old = graph.constants.get(data.input[1])
    if value <= 0 or old is None or old.size != 1:
        return
    name = graph.add_constant(f"{product.output[0]}_scale_absorbed", old * np.float32(value))
    for reader in graph.consumers[quantize.output[0]]:
        if reader.op_type == "DequantizeLinear":
            reader.input[:] = [data.input[0], name, data.input[2]]
    graph.refresh()


def _drop_pair_before(graph: Graph, reader: onnx.NodeProto, name: str) -> bool:
    """Let `reader` read the float tensor behind the pair at its input `name`.

    Only where the pair serves this reader alone, so that no tensor is read in both forms.
    """
    dequantize = graph.source(name, "DequantizeLinear")
    if dequantize is None or graph.sole_consumer(name) is None:
        return False
    quantize = graph.source(dequantize.input[0], "QuantizeLinear")
    if quantize is None or graph.sole_consumer(quantize.input[0]) is None:
        return False
    for index, read in enumerate(reader.input):
        if read == name:
            reader.input[index] = quantize.input[0]
    graph.refresh()
    return True


def _free_one_branch(graph: Graph, add: onnx.NodeProto) -> None:
    """Drop the pair between a convolution and a residual addition, on one branch at most."""
    for name in list(add.input):
        dequantize = graph.source(name, "DequantizeLinear")
        quantize = dequantize and graph.source(dequantize.input[0], "QuantizeLinear")
        behind_conv = quantize and graph.source(quantize.input[0], "Conv")
        if behind_conv and _drop_pair_before(graph, add, name):
            return


def _bare_logits(graph: Graph, clipped: Collection[str]) -> None:
    """Drop the pair behind a linear layer that makes a graph output: 8 bits would tie logits."""
    for output in graph.model.graph.output:
        dequantize = graph.source(output.name, "DequantizeLinear")
        quantize = dequantize and graph.source(dequantize.input[0], "QuantizeLinear")
        if dequantize is None or quantize is None or output.name in graph.consumers:
            continue
        layer = graph.producer.get(quantize.input[0])
        if layer is None or layer.op_type not in LINEAR:
            continue
        if graph.sole_consumer(layer.output[0]) is None or output.name in clipped:
            continue
        dequantize.output[0] = f"{output.name}_unused"
        quantize.input[0] = layer.output[0] = output.name
        graph.refresh()
