"""What a float TFLite file holds and integers can't gets values that do the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np

from exporters.clipping import Grid
from exporters.inspect_tflite import TfliteGraph
from exporters.profiles.tflite_rules import BIAS_INPUTS, CHANNEL_AXES, data_input, name_of
from exporters.tflite_pack import pack

Ranges = Mapping[str, Mapping[str, np.ndarray]]

LARGEST_WEIGHT = 127
LARGEST_BIAS = 2.0**30
"""Half of what int32 holds: scales are rounded to float32 on the way."""


def within_limits(path: Path, ranges: Ranges, grid: Grid) -> str | bytearray:
    """Return what the quantizer takes: the file's path, or its content where something changed.

    Args:
        path: a float file.
        ranges: of its activations, as `tflite_calibration.quantizer_ranges` returns them.
        grid: that activations are rounded to.
    """
    graph = TfliteGraph(path)
    borders, biases = _bound_borders(graph, ranges), _bound_biases(graph, ranges, grid)
    return bytearray(pack(graph.model)) if borders or biases else str(path)


def _bound_borders(graph: TfliteGraph, ranges: Ranges) -> bool:
    """Put the smallest value that calibration saw in the place of borders of -inf.

    Max pools have such borders. That value loses every comparison just as well, since smaller ones
    are clamped to it.
    """
    changed = False
    readers = Counter(int(index) for operator in graph.operators for index in operator.inputs)
    for operator in graph.operators:
        if graph.op_name(operator) != "PADV2":
            continue
        inside, border = (int(operator.inputs[place]) for place in (0, 2))
        if np.isneginf(_floats(graph, border)).all():
            if readers[border] > 1:  # litert-torch writes one constant for all that need -inf
                readers[border] -= 1
                border = _copied(graph, border)
                operator.inputs = [*operator.inputs[:2], border]
            _store(graph, border, np.atleast_1d(ranges[name_of(graph, inside)]["min"]))
            changed = True
    return changed


def _bound_biases(graph: TfliteGraph, ranges: Ranges, grid: Grid) -> bool:
    """Raise the largest weight where a bias has no int32 form beside it.

    A bias is stored in steps of input scale x weight scale, and the weights of a channel that batch
    norm has all but silenced have tiny scales: the quantizer would store -2**31 for any such bias.
    The weight that is set to raise the scale changes the sum by at most 127 x 255 / 2**30 of the
    bias in 8 bits, and by 0.4 % of it where activations have 16.
    """
    changed = False
    for operator in graph.operators:
        name = graph.op_name(operator)
        place = BIAS_INPUTS.get(name)
        if place is None or len(operator.inputs) <= place or operator.inputs[place] < 0:
            continue
        weight, bias = int(operator.inputs[1]), int(operator.inputs[place])
        span = ranges.get(name_of(graph, data_input(graph, operator)))
        if span is None or not (graph.is_constant(weight) and graph.is_constant(bias)):
            continue
        least = LARGEST_WEIGHT * np.abs(_floats(graph, bias)) / (LARGEST_BIAS * _step(span, grid))
        values = _floats(graph, weight).reshape(graph.tensors[weight].shape)
        others = tuple(axis for axis in range(values.ndim) if axis != CHANNEL_AXES[name])
        small = np.abs(values).max(axis=others) < least  # [C]
        if small.any():
            values = values.copy()
            first = [0] * values.ndim
            first[CHANNEL_AXES[name]] = small
            values[tuple(first)] = least[small]
            _store(graph, weight, values)
            changed = True
    return changed


def _step(span: Mapping[str, np.ndarray], grid: Grid) -> float:
    """The scale of an activation; zero is among its values."""
    low, high = min(float(span["min"].min()), 0.0), max(float(span["max"].max()), 0.0)
    width = 2 * max(-low, high) if grid.symmetric else high - low
    return max(width / grid.steps, float(np.finfo(np.float32).tiny))


def _floats(graph: TfliteGraph, index: int) -> np.ndarray:
    return np.frombuffer(bytes(graph.model.buffers[graph.tensors[index].buffer].data), np.float32)


def _store(graph: TfliteGraph, index: int, values: np.ndarray) -> None:
    """Give a tensor a buffer of its own with these float32 values."""
    graph.tensors[index].buffer = len(graph.model.buffers)
    buffer = type(graph.model.buffers[0])(np.ravel(values).view(np.uint8))
    graph.model.buffers.append(buffer)


def _copied(graph: TfliteGraph, index: int) -> int:
    """Add a tensor like another one under a name of its own; return its index."""
    tensor: Any = copy(graph.tensors[index])
    tensor.name = f"{tensor.name.decode()}:{len(graph.tensors)}".encode()
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1
