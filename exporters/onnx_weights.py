"""Weight-only ONNX: integers behind a DequantizeLinear, all arithmetic in float.

A runtime may expand the weights once, when it loads the file.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from exporters.float_layers import named_nodes
from exporters.onnx_file import LARGE_BYTES, put_aside, read_model, scratch_file, write_model
from exporters.onnx_qdq import Graph
from exporters.onnx_tidy import LAYERS, compact, raise_opset
from exporters.quiet import quiet_step

if TYPE_CHECKING:
    import onnx

    from boards import OnnxRules

FOUR_BIT_OPSET = 21


def export_weights_onnx(
    float_path: Path, path: Path, *, bits: int, rules: OnnxRules | None, left: Sequence[str] = ()
) -> None:
    """Store the weights of a float ONNX file's layers as integers of 8 or 4 bits, zero point 0.

    Args:
        rules: which layers have a scale for each output; None for all.
        left: layers that stay float, by name.

    Raises:
        ExportError: the graph can't be brought to opset 21, which 4 bits need.
    """
    with quiet_step("quantize the weights of the ONNX model"), scratch_file(path) as file:
        model = read_model(float_path)
        if bits == 4:
            model = raise_opset(model, FOUR_BIT_OPSET)
        kept = {node.input[1] for node in named_nodes(model, left)}
        _store_integers(model, bits, rules, kept, file)
        compact(model)
        write_model(model, path)


def _store_integers(
    model: onnx.ModelProto,
    bits: int,
    rules: OnnxRules | None,
    kept: Collection[str],
    file: BinaryIO,
) -> None:
    """Put a DequantizeLinear before every layer whose weight is a constant, in place.

    Args:
        kept: names of weights that stay float.
        file: where large weights go.
    """
    from onnx import helper, numpy_helper

    graph, nodes = Graph(model), []
    done: set[str] = set()
    for node in model.graph.node:
        name = node.input[1] if node.op_type in LAYERS else ""
        weight = graph.constants.get(name)
        if weight is not None and weight.dtype == np.float32 and name not in {*done, *kept}:
            axis = channel_axis(node, weight.ndim, rules)
            integers, scale = quantized_weight(weight, bits, axis)
            stored = [
                _constant(f"{name}_integers", integers, bits),
                numpy_helper.from_array(scale, f"{name}_scale"),
            ]
            if len(stored[0].raw_data) >= LARGE_BYTES:
                put_aside(stored[0], np.frombuffer(stored[0].raw_data, np.uint8), file)
            model.graph.initializer.extend(stored)
            dequantize = helper.make_node("DequantizeLinear", [c.name for c in stored], [name])
            if axis is not None:
                dequantize.attribute.append(helper.make_attribute("axis", axis))
            nodes.append(dequantize)
            done.add(name)
        nodes.append(node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    for index in reversed(range(len(model.graph.initializer))):
        if model.graph.initializer[index].name in done:
            del model.graph.initializer[index]


def _constant(name: str, integers: np.ndarray, bits: int) -> onnx.TensorProto:
    """An INT8 or INT4 tensor; of 4 bits two to a byte, the first one in the lower half."""
    from onnx import TensorProto, helper

    if bits == 8:
        kind, content = TensorProto.INT8, integers
    else:
        kind, halves = TensorProto.INT4, integers.ravel().view(np.uint8) & 0xF
        halves = np.append(halves, np.zeros(halves.size % 2, np.uint8))
        content = halves[::2] | halves[1::2] << 4
    return helper.make_tensor(name, kind, integers.shape, content.tobytes(), raw=True)


def quantized_weight(
    weight: np.ndarray, bits: int, axis: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return int8 values in -q..q, q = 2**(bits - 1) - 1, and scales, float32.

    Args:
        weight: float32, any shape.
        axis: of the channels that have a scale each; None for one scale, shape ().
    """
    limit = 2 ** (bits - 1) - 1
    others = tuple(a for a in range(weight.ndim) if a != axis)
    largest = np.abs(weight).max(axis=others, keepdims=True)
    scale = np.where(largest > 0, largest / limit, 1).astype(np.float32)
    integers = np.clip(np.rint(weight / scale), -limit, limit)
    return integers.astype(np.int8), scale.reshape(() if axis is None else -1)


def channel_axis(node: onnx.NodeProto, rank: int, rules: OnnxRules | None) -> int | None:
    """Axis of the outputs in a layer's weight; None where one scale serves them all.

    So it does in grouped transposed convolutions, whose weights [I, O / groups, h, w] have no axis
    of all outputs.

    Args:
        rank: number of the weight's axes.
        rules: which layers have a scale for each output; None for all.
    """
    attributes = {attribute.name: attribute.i for attribute in node.attribute}
    if node.op_type == "Conv":
        return 0 if rules is None or rules.per_channel_conv else None
    if node.op_type == "ConvTranspose":
        plain = attributes.get("group", 1) == 1
        return 1 if plain and (rules is None or rules.per_channel_conv) else None
    if rules is not None and not rules.per_channel_linear:
        return None
    if node.op_type == "Gemm" and attributes.get("transB", 0):
        return 0
    return rank - 1
