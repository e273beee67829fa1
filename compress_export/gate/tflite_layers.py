"""Layers of a TFLite file: bytes and MACs from its operators, times of each by itself."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from compress_export.gate.layers import Layer


def operator_times_ms(path: Path, *, threads: int) -> list[float]:
    """Return the time of each operator that depends on the image, in order, on this machine.

    LiteRT's Python interpreter gives no times of operators, so each runs in a file of its own.

    Raises:
        BenchError: an operator does not run by itself, or LiteRT isn't there.
    """
    from exporters.inspect_tflite import TfliteGraph
    from exporters.tflite_operators import write_operators
    from runtime_bench import time_small_files

    with tempfile.TemporaryDirectory() as folder:
        files = write_operators(TfliteGraph(path), Path(folder))
        return time_small_files(files, "tflite", threads=threads)


def tflite_layers(path: Path, times_ms: Sequence[float] | None) -> tuple[Layer, ...]:
    """Return the layers in the order in which they run.

    Args:
        times_ms: as `operator_times_ms` returns them; None where they aren't known.
    """
    from exporters.inspect_tflite import WEIGHTED, TfliteGraph, layer_name
    from exporters.tflite_operators import operator_groups

    graph, counted = TfliteGraph(path), set[int]()
    found = []
    for place, group in enumerate(operator_groups(graph)):
        kind = graph.op_name(group.operator)
        if kind not in WEIGHTED:
            continue
        inputs = [int(index) for index in group.operator.inputs if index >= 0]
        read = [int(i) for op in (*group.before, group.operator) for i in op.inputs if i >= 0]
        constants = [index for index in dict.fromkeys(read) if graph.is_constant(index)]
        own = [i for i in constants if graph.tensors[i].buffer not in counted]
        counted.update(graph.tensors[index].buffer for index in own)
        result, weight = int(group.operator.outputs[0]), inputs[1]
        found.append(
            Layer(
                layer_name(graph.tensors[weight].name.decode()).partition(":")[0],
                kind,
                sum(graph.size_bytes(index) + _scales_bytes(graph, index) for index in own),
                _macs(kind, *(_shape(graph, index) for index in (*inputs[:3], result))),
                None if times_ms is None else times_ms[place],
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
