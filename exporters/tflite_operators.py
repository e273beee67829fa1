"""Each operator of a TFLite file by itself, so that it can be weighed and timed."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exporters.inspect_tflite import TfliteGraph
from exporters.tflite_pack import pack


@dataclass(frozen=True)
class OperatorGroup:
    """One operator that depends on the image.

    Attributes:
        operator: `OperatorT` of the TFLite schema.
        before: operators that widen its constants, such as weights from float16, in order.
    """

    operator: Any
    before: tuple[Any, ...]


def operator_groups(graph: TfliteGraph) -> list[OperatorGroup]:
    """Return the operators in the order in which they run."""
    widened: dict[int, tuple[Any, ...]] = {}
    groups = []
    for operator in graph.operators:
        inputs = [int(index) for index in operator.inputs if index >= 0]
        before = tuple(step for index in inputs for step in widened.get(index, ()))
        if all(graph.is_constant(index) or index in widened for index in inputs):
            widened[int(operator.outputs[0])] = (*before, operator)
        else:
            groups.append(OperatorGroup(operator, before))
    return groups


def write_operators(graph: TfliteGraph, folder: Path) -> list[Path]:
    """Write a file for every group, which takes and returns the tensors that its operator does."""
    paths = []
    for number, group in enumerate(operator_groups(graph)):
        paths.append(folder / f"{number:05}.tflite")
        paths[-1].write_bytes(pack(_model_of(graph, group)))
    return paths


def _model_of(graph: TfliteGraph, group: OperatorGroup) -> Any:
    """A model with the tensors and buffers of the group alone, numbered anew."""
    operators = (*group.before, group.operator)
    tensors = _distinct(i for op in operators for i in (*op.inputs, *op.outputs) if i >= 0)
    buffers = [0, *_distinct(b for i in tensors if (b := graph.tensors[i].buffer))]
    made = {int(index) for operator in operators for index in operator.outputs}
    model, subgraph = copy.copy(graph.model), copy.copy(graph.subgraph)
    model.subgraphs, model.signatureDefs, model.metadata = [subgraph], None, None
    model.metadataBuffer = None
    model.buffers = [graph.model.buffers[index] for index in buffers]
    subgraph.tensors = [_moved(graph.tensors[index], buffers) for index in tensors]
    subgraph.operators = [_renumbered(operator, tensors) for operator in operators]
    fed = (i for i in tensors if i not in made and not graph.is_constant(i))
    subgraph.inputs = [tensors.index(index) for index in fed]
    subgraph.outputs = [tensors.index(int(index)) for index in group.operator.outputs]
    return model


def _distinct(indices: Any) -> list[int]:
    return list(dict.fromkeys(int(index) for index in indices))


def _moved(tensor: Any, buffers: Sequence[int]) -> Any:
    moved = copy.copy(tensor)
    moved.buffer = buffers.index(tensor.buffer)
    return moved


def _renumbered(operator: Any, tensors: Sequence[int]) -> Any:
    new = copy.copy(operator)
    new.inputs = [-1 if index < 0 else tensors.index(int(index)) for index in operator.inputs]
    new.outputs = [tensors.index(int(index)) for index in operator.outputs]
    return new
