"""Quantizing weights that stay in their file.

onnxruntime's quantizer looks for nothing in a weight but the smallest and the largest value that
share a scale. So it is given those two in place of a large weight, [O, 2, 1, 1] for [O, I, h, w],
and what it would have made of the weight is made here with the scale and the zero point that it
found, a few rows at a time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from exporters.onnx_file import put_aside, row_slices, stored, tensor_array
from exporters.onnx_tidy import LAYERS

if TYPE_CHECKING:
    import onnx

QUANTIZED, SCALE, ZERO_POINT = "_quantized", "_scale", "_zero_point"  # as the quantizer names them


def large_weights(model: onnx.ModelProto) -> dict[str, int]:
    """Name -> axis of the outputs, of float weights that lie in a file and serve layers alone."""
    from onnx import TensorProto

    large = {
        tensor.name: len(tensor.dims)
        for tensor in model.graph.initializer
        if stored(tensor) is not None
        and tensor.data_type == TensorProto.FLOAT
        and len(tensor.dims) > 1
    }
    axes: dict[str, set[int]] = {}
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            if name in large:
                layer = index == 1 and node.op_type in LAYERS
                axis = _output_axis(node, large[name]) if layer else -1
                axes.setdefault(name, set()).add(axis)
    return {name: axis.pop() for name, axis in axes.items() if len(axis) == 1 and -1 not in axis}


def with_extremes(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy with the extremes of each output in place of `large_weights`, all else in memory."""
    import onnx
    from onnx import numpy_helper

    axes = large_weights(model)
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for tensor in copy.graph.initializer:
        if stored(tensor) is not None:
            values = tensor_array(tensor)
            if tensor.name in axes:
                values = _extremes(values, axes[tensor.name])
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    return copy


def put_weights_back(model: onnx.ModelProto, source: onnx.ModelProto, file: BinaryIO) -> None:
    """Let a quantized model have the whole weights again, in place; integers go into `file`.

    Args:
        model: what the quantizer made of `with_extremes(source)`.
    """
    found = {tensor.name: tensor for tensor in model.graph.initializer}
    whole = {tensor.name: tensor for tensor in source.graph.initializer}
    for name, axis in large_weights(source).items():
        if name in found:  # it stays float, perhaps behind a QuantizeLinear
            found[name].CopyFrom(whole[name])
        if name + QUANTIZED in found:
            integers = quantized(
                tensor_array(whole[name]),
                tensor_array(found[name + SCALE]),
                tensor_array(found[name + ZERO_POINT]),
                axis,
            )
            target = found[name + QUANTIZED]
            target.dims[:] = integers.shape
            put_aside(target, integers, file)


def quantized(
    weight: np.ndarray, scale: np.ndarray, zero_point: np.ndarray, axis: int
) -> np.ndarray:
    """QuantizeLinear of ONNX: round half to even, add the zero point, saturate in its dtype.

    Args:
        scale, zero_point: one for each position along `axis`, or one for all.
    """
    limits = np.iinfo(zero_point.dtype)
    shape = [1] * weight.ndim
    if scale.size > 1:
        shape[axis] = -1
    scale, zero_point = scale.reshape(shape), zero_point.reshape(shape)
    found = np.empty(weight.shape, zero_point.dtype)
    for rows in row_slices(weight):
        own = rows if axis == 0 and scale.size > 1 else slice(None)
        values = (weight[rows] / scale[own]).round() + zero_point[own]
        found[rows] = np.clip(values, limits.min, limits.max)
    return found


def _output_axis(node: onnx.NodeProto, rank: int) -> int:
    """The axis that onnxruntime quantizes by channel."""
    if node.op_type in ("Conv", "ConvTranspose"):
        return 0 if node.op_type == "Conv" else 1
    if node.op_type == "Gemm" and any(a.name == "transB" and a.i for a in node.attribute):
        return 0
    return rank - 1


def _extremes(weight: np.ndarray, axis: int) -> np.ndarray:
    """Smallest and largest value at each position of an axis: [O, 2, 1, 1] of [O, I, h, w]."""
    lows, highs = [], []
    others = tuple(a for a in range(weight.ndim) if a != axis)
    for rows in row_slices(weight):
        lows.append(weight[rows].min(others))
        highs.append(weight[rows].max(others))
    if axis == 0:
        low, high = np.concatenate(lows), np.concatenate(highs)
    else:
        low, high = np.min(lows, 0), np.max(highs, 0)
    shape = [1] * weight.ndim
    shape[axis] = -1
    return np.concatenate([low.reshape(shape), high.reshape(shape)], axis=others[0])
