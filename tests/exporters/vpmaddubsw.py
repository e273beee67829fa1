"""What x86 without VNNI computes, emulated in integers: sums of two products saturate at 16 bits.

VPMADDUBSW multiplies uint8 by int8 and adds neighbouring products with signed saturation (Intel 64
and IA-32 Architectures Software Developer's Manual, volume 2, PMADDUBSW); sums of pairs are then
added in 32 bits. Zero points are taken off afterwards, so that the raw uint8 activations count.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import helper

from exporters.onnx_qdq import Graph


def exact(rows: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Products [n, k] x [k, m] in 32 bits, as VNNI adds them."""
    return rows.astype(np.int32) @ weights.astype(np.int32)


def saturating(rows: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The same of uint8 [n, k] and int8 [k, m], pairs of neighbours along k added in 16 bits."""
    assert rows.dtype == np.uint8 and weights.dtype == np.int8
    if rows.shape[1] % 2:
        rows = np.pad(rows, ((0, 0), (0, 1)))
        weights = np.pad(weights, ((0, 1), (0, 0)))
    total = np.zeros((len(rows), weights.shape[1]), np.int32)
    for k in range(0, rows.shape[1], 2):
        pair = exact(rows[:, k : k + 2], weights[k : k + 2])
        total += np.clip(pair, -(2**15), 2**15 - 1)
    return total


@dataclass(frozen=True)
class Layer:
    """A convolution or linear layer of a file with the integers that it multiplied.

    Attributes:
        rows: uint8 [n, k], the activations under each place of the kernel, channels last.
        weights: int8 [k, m].
        step: output steps per unit of the sum, [m]: what requantization multiplies with.
        zero, scale, bias: of the layer: result = scale x (sum - zero x weights) + bias, [m].
        result: float32 [n, m], what onnxruntime makes of it in floating point.
    """

    name: str
    rows: np.ndarray
    weights: np.ndarray
    step: np.ndarray
    zero: int
    scale: np.ndarray
    bias: np.ndarray
    result: np.ndarray

    @property
    def error_steps(self) -> np.ndarray:
        """|saturating - exact| in steps of the quantized output, [n, m]."""
        difference = saturating(self.rows, self.weights) - exact(self.rows, self.weights)
        return np.abs(difference * self.step)


def layers(path: Path, images: np.ndarray) -> Iterator[Layer]:
    """The layers of a U8S8 file as they ran on `images`, float32 [N, C, H, W]."""
    model = onnx.load(str(path))
    graph = Graph(model)
    values = _values(model, graph, images)
    for node in model.graph.node:
        if node.op_type not in ("Conv", "Gemm"):
            continue
        data, weight, bias = (graph.producer[name] for name in node.input)
        stored = graph.constants[weight.input[0]]
        x, zero = values[data.input[0]], int(graph.constants[data.input[2]])
        result = values[node.output[0]]
        if node.op_type == "Conv":
            options = {a.name: helper.get_attribute_value(a) for a in node.attribute}
            assert options.get("group", 1) == 1
            x = _unfolded(x, zero, stored.shape[2:], options)
            stored = stored.transpose(0, 2, 3, 1)
            result = np.moveaxis(result, 1, -1)
        scale = graph.constants[data.input[1]] * graph.constants[weight.input[1]]
        reader = next(iter(graph.consumers.get(node.output[0], [])), None)
        yield Layer(
            node.name,
            rows=x,
            weights=np.ascontiguousarray(stored.reshape(len(stored), -1).T),
            step=scale if reader is None else scale / graph.constants[reader.input[1]],
            zero=zero,
            scale=scale,
            bias=graph.constants[bias.input[0]] * graph.constants[bias.input[1]],
            result=result.reshape(len(x), -1),
        )


def _unfolded(x: np.ndarray, zero: int, kernel: tuple[int, ...], options: dict) -> np.ndarray:
    """uint8 [N, C, H, W] -> [N x places, kh x kw x C]."""
    top, left, bottom, right = options.get("pads", (0, 0, 0, 0))
    padded = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=zero)
    windows = np.lib.stride_tricks.sliding_window_view(padded, kernel, (2, 3))
    down, across = options.get("strides", (1, 1))
    windows = windows[:, :, ::down, ::across]  # [N, C, h, w, kh, kw]
    places = windows.transpose(0, 2, 3, 4, 5, 1)
    return np.ascontiguousarray(places).reshape(-1, kernel[0] * kernel[1] * x.shape[1])


def _values(model: onnx.ModelProto, graph: Graph, images: np.ndarray) -> dict[str, np.ndarray]:
    """The integers that layers read and the floats that they make, by running without fusion."""
    names = {node.output[0] for node in model.graph.node if node.op_type in ("Conv", "Gemm")}
    names |= {
        node.input[0]
        for node in model.graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] not in graph.constants
    }
    opened = onnx.ModelProto()
    opened.CopyFrom(model)
    extra = sorted(names - graph.outputs)
    opened.graph.output.extend(onnx.ValueInfoProto(name=name) for name in extra)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        opened.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return dict(zip(sorted(names), session.run(sorted(names), {"input": images}), strict=True))
