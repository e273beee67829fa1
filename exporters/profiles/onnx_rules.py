"""What every runtime expects of the integers in an ONNX file with Q/DQ pairs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from exporters.onnx_extremes import quantized
from exporters.onnx_file import read_model
from exporters.onnx_qdq import Graph
from exporters.onnx_tidy import LAYERS

if TYPE_CHECKING:
    import onnx

BIAS_TOLERANCE = 1e-3  # relative; scales are float32 and products of two of them


@dataclass(frozen=True)
class StoredWeight:
    """A layer's weight behind a DequantizeLinear.

    Attributes:
        layer: name of the layer.
        values: integers, as stored or as its QuantizeLinear makes them of a float weight.
        scale, zero_point: scalars or one per channel.
        axis: of the channels.
        is_float: stored as float32 behind a QuantizeLinear.
    """

    layer: str
    op_type: str
    values: np.ndarray
    scale: np.ndarray
    zero_point: np.ndarray
    axis: int
    is_float: bool


def load_graph(path: Path) -> Graph:
    return Graph(read_model(path))


def layer_name(node: onnx.NodeProto) -> str:
    return node.name or node.output[0]


def stored_weights(graph: Graph) -> Iterator[StoredWeight]:
    """Weights of convolutions and linear layers that are integers or become so from constants."""
    for node in graph.model.graph.node:
        if node.op_type in LAYERS and len(node.input) > 1:
            found = stored_weight(graph, node)
            if found is not None:
                yield found


def stored_weight(graph: Graph, node: onnx.NodeProto) -> StoredWeight | None:
    """The weight of one layer; None where no constant stands behind a DequantizeLinear."""
    dequantize = graph.source(node.input[1], "DequantizeLinear")
    if dequantize is None or len(dequantize.input) < 3:
        return None
    scale, zero_point = (graph.constants.get(name) for name in dequantize.input[1:3])
    if scale is None or zero_point is None:
        return None
    axis = axis_of(dequantize)
    stored = graph.constants.get(dequantize.input[0])
    quantize = graph.source(dequantize.input[0], "QuantizeLinear")
    if stored is None and quantize is not None and graph.same_scale(quantize, dequantize):
        weight = graph.constants.get(quantize.input[0])
        if weight is not None and axis_of(quantize) == axis:
            values = quantized(weight, scale, zero_point, axis)
            return StoredWeight(
                layer_name(node), node.op_type, values, scale, zero_point, axis, True
            )
    if stored is None:
        return None
    return StoredWeight(layer_name(node), node.op_type, stored, scale, zero_point, axis, False)


def axis_of(node: onnx.NodeProto) -> int:
    """Axis of a per-channel scale; 1 where it isn't given (ONNX, QuantizeLinear)."""
    return next((a.i for a in node.attribute if a.name == "axis"), 1)


def largest(values: np.ndarray) -> int:
    """Largest absolute value; of -128 it is 128."""
    return int(np.abs(values.astype(np.int32)).max(initial=0))


def integer_violations(graph: Graph) -> Iterator[str]:
    """Rules of any runtime.

    - Scales are finite and above 0 (ONNX operators, QuantizeLinear).
    - Weights are symmetric: zero point 0 and no -128. LiteRT 8-bit quantization specification,
      summary; two products of -128 x -128 don't fit into the 16 bits in which kernels without
      dot-product instructions add a pair (XNNPACK's "mlal" kernels; worked out, not measured).
    - An int32 bias has scale input_scale x weight_scale and zero point 0: integer kernels add it
      without looking at its own scale (ONNX operators, QLinearConv, input B).
    """
    for node in graph.model.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            scale = graph.constants.get(node.input[1])
            if scale is None or not (np.isfinite(scale).all() and (scale > 0).all()):
                yield f"{node.op_type} -> {node.output[0]} has a scale that is no positive constant"
    for weight in stored_weights(graph):
        if weight.zero_point.any():
            yield f"weight of {weight.layer} has a zero point other than 0"
        elif weight.values.dtype == np.int8 and weight.values.min(initial=0) == -128:
            yield f"weight of {weight.layer} holds -128"
    yield from bias_violations(graph)


def bias_violations(graph: Graph) -> Iterator[str]:
    for node in graph.model.graph.node:
        if node.op_type not in ("Conv", "Gemm") or len(node.input) < 3:
            continue
        bias = graph.source(node.input[2], "DequantizeLinear")
        data = graph.source(node.input[0], "DequantizeLinear")
        weight = stored_weight(graph, node)
        if bias is None or data is None or weight is None:
            continue
        scale, data_scale = (graph.constants.get(n.input[1]) for n in (bias, data))
        zero_point = graph.constants.get(bias.input[2]) if len(bias.input) > 2 else None
        if zero_point is not None and zero_point.any():
            yield f"bias of {layer_name(node)} has a zero point other than 0"
        if scale is None or data_scale is None:
            continue
        if not np.allclose(scale, data_scale * weight.scale, rtol=BIAS_TOLERANCE, atol=0):
            yield f"bias of {layer_name(node)} is not scaled by input scale x weight scale"
