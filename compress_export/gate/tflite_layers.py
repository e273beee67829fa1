"""Layers of a TFLite file: bytes and MACs from its operators."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from compress_export.gate.layers import Layer


def tflite_layers(path: Path) -> tuple[Layer, ...]:
    """Return the layers in the order in which they run, without times."""
    from exporters.inspect_tflite import WEIGHTED, TfliteGraph, layer_name

    graph, counted = TfliteGraph(path), set[int]()
    found = []
    for operator in graph.operators:
        kind = graph.op_name(operator)
        if kind not in WEIGHTED:
            continue
        inputs = [int(index) for index in operator.inputs if index >= 0]
        constants = [index for index in inputs if graph.is_constant(index)]
        own = [i for i in constants if graph.tensors[i].buffer not in counted]
        counted.update(graph.tensors[index].buffer for index in own)
        result, weight = int(operator.outputs[0]), inputs[1]
        found.append(
            Layer(
                layer_name(graph.tensors[weight].name.decode()).partition(":")[0],
                kind,
                sum(graph.size_bytes(index) + _scales_bytes(graph, index) for index in own),
                _macs(kind, *(_shape(graph, index) for index in (*inputs[:3], result))),
            )
        )
    return tuple(found)


def _scales_bytes(graph: Any, index: int) -> int:
    """Scales (float32) and zero points (int64) lie beside the tensor."""
    rules = graph.tensors[index].quantization
    if rules is None or rules.scale is None:
        return 0
    points = 0 if rules.zeroPoint is None else len(rules.zeroPoint)
    return 4 * len(rules.scale) + 8 * points


def _shape(graph: Any, index: int) -> tuple[int, ...]:
    shape = graph.tensors[index].shape
    return () if shape is None else tuple(max(1, int(size)) for size in shape)


def _macs(kind: str, *shapes: tuple[int, ...]) -> int | None:
    """Weights times places that they are applied at, or contracted axis times results."""
    *inputs, result = shapes
    if kind in ("CONV_2D", "DEPTHWISE_CONV_2D"):
        return int(np.prod(inputs[1]) * np.prod(result[1:3]))
    if kind == "TRANSPOSE_CONV":  # (shape of the result, weight, data)
        return int(np.prod(inputs[1]) * np.prod(inputs[2][1:3]))
    if kind == "FULLY_CONNECTED":
        return int(np.prod(result) * inputs[1][-1])
    return int(np.prod(result) * inputs[0][-1]) if inputs[0] else None
