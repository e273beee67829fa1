"""What every TFLite runtime expects of a fully INT8 file, and what those without floats add."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from exporters.inspect_tflite import TfliteGraph

# Output channels of the weights of each layer: the axis that scales may follow.
CHANNEL_AXES = {"CONV_2D": 0, "DEPTHWISE_CONV_2D": 3, "TRANSPOSE_CONV": 0, "FULLY_CONNECTED": 0}
# Which input is the bias.
BIAS_INPUTS = {"CONV_2D": 2, "DEPTHWISE_CONV_2D": 2, "TRANSPOSE_CONV": 3, "FULLY_CONNECTED": 2}
# Results are the input's own bytes, so that both have one scale and zero point.
SAME_SCALE = (
    "AVERAGE_POOL_2D",
    "MAX_POOL_2D",
    "PAD",
    "PADV2",
    "RESHAPE",
    "RESIZE_BILINEAR",
    "RESIZE_NEAREST_NEIGHBOR",
    "SLICE",
    "SPLIT",
    "SQUEEZE",
    "STRIDED_SLICE",
    "TRANSPOSE",
)
# Scale and zero point of results whose range is known beforehand.
FIXED_SCALES = {
    "LOGISTIC": (1 / 256, -128),
    "SOFTMAX": (1 / 256, -128),
    "TANH": (1 / 128, 0),
    "L2_NORMALIZATION": (1 / 128, 0),
}
BIAS_TOLERANCE = 0.02  # of the output scale, as LiteRT's own kernels allow
FLOATS = ("float16", "float32", "float64", "bfloat16")


def litert_violations(path: Path) -> list[str]:
    """Rules for the interpreter on a CPU."""
    return list(specified(TfliteGraph(path)))


def scale_of(graph: TfliteGraph, index: int) -> tuple[np.ndarray, np.ndarray, int] | None:
    """Scales, zero points and axis of a tensor; None where it is not quantized."""
    found = graph.tensors[index].quantization
    if found is None or found.scale is None or len(found.scale) == 0:
        return None
    zero_points = (
        np.zeros(len(found.scale), np.int64)
        if found.zeroPoint is None
        else (np.asarray(found.zeroPoint))
    )
    return np.asarray(found.scale, np.float64), zero_points, int(found.quantizedDimension)


def place(graph: TfliteGraph, operator: Any) -> str:
    """An operator by its type and the tensor that it makes."""
    return f"{graph.op_name(operator)} -> {name_of(graph, int(operator.outputs[0]))}"


def name_of(graph: TfliteGraph, index: int) -> str:
    return str(graph.tensors[index].name.decode())


def specified(graph: TfliteGraph) -> Iterator[str]:
    """LiteRT 8-bit quantization specification, summary and table of operators.

    Weights int8, symmetric, in [-127, 127], with one scale or one per output channel; biases
    int32 with scale input_scale x weight_scale and zero point 0; fixed and shared scales.
    """
    for operator in graph.operators:
        name = graph.op_name(operator)
        if name in CHANNEL_AXES:
            yield from _layer(graph, operator, CHANNEL_AXES[name])
        ends = [scale_of(graph, int(i)) for i in (data_input(graph, operator), operator.outputs[0])]
        if name in SAME_SCALE and None not in ends and not _equal(ends[0], ends[1]):
            yield f"{place(graph, operator)} changes scale or zero point"
        if name in FIXED_SCALES and ends[1] is not None:
            scale, zero_point = FIXED_SCALES[name]
            if not np.isclose(ends[1][0][0], scale) or ends[1][1][0] != zero_point:
                yield f"{place(graph, operator)} has another scale than {scale:g}"


def data_input(graph: TfliteGraph, operator: Any) -> int:
    """Index of the input that holds data; some operators begin with something else."""
    first = {"TRANSPOSE_CONV": 2, "SPLIT": 1}.get(graph.op_name(operator), 0)
    return int(operator.inputs[first])


def _equal(one: Any, other: Any) -> bool:
    return bool(np.array_equal(one[0], other[0]) and np.array_equal(one[1], other[1]))


def _layer(graph: TfliteGraph, operator: Any, axis: int) -> Iterator[str]:
    where = f"weight of {place(graph, operator)}"
    index = int(operator.inputs[1])
    if graph.dtype(index) == "float32" and graph.is_constant(index):
        return  # computes in float, which `checks.check_float_layers` must have expected
    weight = scale_of(graph, index)
    if graph.dtype(index) != "int8" or weight is None:
        yield f"{where} is {graph.dtype(index)}, not quantized int8"
        return
    if not graph.is_constant(index):  # a product of two activations
        if len(weight[0]) > 1:
            yield f"{where} is an activation with {len(weight[0])} scales, one is allowed"
        return
    scales, zero_points, channel_axis = weight
    if zero_points.any():
        yield f"{where} has a zero point other than 0"
    values = np.frombuffer(graph.model.buffers[graph.tensors[index].buffer].data, np.int8)
    if values.min(initial=0) == -128:
        yield f"{where} holds -128"
    channels = int(graph.tensors[index].shape[axis])
    if len(scales) > 1 and (channel_axis != axis or len(scales) != channels):
        yield f"{where} has {len(scales)} scales on axis {channel_axis}, channels are axis {axis}"
        return
    yield from _bias(graph, operator, scales)


def _bias(graph: TfliteGraph, operator: Any, weight_scales: np.ndarray) -> Iterator[str]:
    place_of_bias = BIAS_INPUTS[graph.op_name(operator)]
    if len(operator.inputs) <= place_of_bias or operator.inputs[place_of_bias] < 0:
        return
    index = int(operator.inputs[place_of_bias])
    where = f"bias of {place(graph, operator)}"
    bias = scale_of(graph, index)
    data = scale_of(graph, data_input(graph, operator))
    result = scale_of(graph, int(operator.outputs[0]))
    if graph.dtype(index) != "int32" or bias is None:
        yield f"{where} is {graph.dtype(index)}, not a quantized int32 constant"
    elif bias[1].any():
        yield f"{where} has a zero point other than 0"
    elif _is_saturated(graph, index):
        yield f"{where} holds the smallest or largest int32: it was too large for its scale"
    elif data is not None and result is not None:
        difference = np.abs(bias[0] - data[0] * weight_scales).max()
        if difference > BIAS_TOLERANCE * result[0][0]:
            yield f"{where} is not scaled by input scale x weight scale"


def _is_saturated(graph: TfliteGraph, index: int) -> bool:
    values = np.frombuffer(graph.model.buffers[graph.tensors[index].buffer].data, np.int32)
    limits = np.iinfo(np.int32)
    return bool(((values == limits.min) | (values == limits.max)).any())


def integers_only(graph: TfliteGraph) -> Iterator[str]:
    """What targets without floats and without memory management demand.

    One subgraph, fixed shapes, int8 in and out, no tensor of floats or of 4 bits.
    """
    if len(graph.model.subgraphs) != 1:
        yield f"{len(graph.model.subgraphs)} subgraphs, one is supported"
    for index in (*graph.subgraph.inputs, *graph.subgraph.outputs):
        if graph.dtype(int(index)) != "int8":
            yield f"{name_of(graph, int(index))} is {graph.dtype(int(index))}, int8 in and out"
    for index, tensor in enumerate(graph.tensors):
        signature = tensor.shapeSignature
        if tensor.shape is None or (signature is not None and (np.asarray(signature) < 0).any()):
            yield f"{name_of(graph, index)} has a dynamic shape"
        if graph.dtype(index) in (*FLOATS, "int4", "uint4"):
            yield f"{name_of(graph, index)} is {graph.dtype(index)}"


def linear_per_channel(graph: TfliteGraph) -> Iterator[str]:
    """Linear layers with one scale per output, for targets that know one per weight only."""
    for operator in graph.operators:
        if graph.op_name(operator) == "FULLY_CONNECTED":
            scales = scale_of(graph, int(operator.inputs[1]))
            if scales is not None and len(scales[0]) > 1:
                yield f"weight of {place(graph, operator)} has a scale per output, one is allowed"
