"""Write a TFLite file again: short tensor names, every buffer inside the flatbuffer.

litert-torch names a tensor after all of its Python classes, which makes a third of a small file.
ai-edge-quantizer puts buffers behind the flatbuffer and refers to them by offset, which the
older interpreters and tflite-micro don't read.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np

from exporters.inspect_tflite import WEIGHTED, TfliteGraph, layer_name
from exporters.profiles.tflite_rules import BIAS_INPUTS

FILE_IDENTIFIER = b"TFL3"
_BESIDE_CONSTANTS = 1 << 20  # bytes to begin with for all else in a file
BUFFER_ALIGNMENT = 16  # what the schema asks of Buffer.data


class _AlignedBuilder(flatbuffers.Builder):
    """The Python builder ignores the schema's force_align; constants need it."""

    def CreateNumpyVector(self, x: np.ndarray) -> int:  # noqa: N802 (name of the base class)
        if x.dtype == np.uint8:
            self.Prep(BUFFER_ALIGNMENT, x.nbytes)
        return super().CreateNumpyVector(x)


def repack(path: Path, *, outputs: Sequence[str] | None = None) -> None:
    """Rewrite the file in place.

    Args:
        outputs: names of the model's outputs in its own order; every other tensor gets the name
            LAYER:INDEX, as `layer_of` reads it back. None leaves all names: once is enough, they
            stay as they are through quantization.
    """
    graph = TfliteGraph(path)
    if outputs is not None:
        _rename(graph, outputs)
        _flatten_biases(graph)
    put_in_place(path, graph.model)


def name_outputs_as(path: Path, source: Path) -> None:
    """Give the file's outputs the names that those of its float source have, in place.

    The quantizer gives an output that it quantizes behind a float layer a name of its own.
    """
    graph, before = TfliteGraph(path), TfliteGraph(source)
    pairs = zip(graph.subgraph.outputs, before.subgraph.outputs, strict=True)
    names = {int(index): bytes(before.tensors[int(wanted)].name) for index, wanted in pairs}
    for index, tensor in enumerate(graph.tensors):
        if index in names:
            tensor.name = names[index]
        elif bytes(tensor.name) in names.values():
            tensor.name = bytes(tensor.name) + b"_float"
    put_in_place(path, graph.model)


def put_in_place(path: Path, model: Any) -> None:
    """Put a `ModelT` in the place of a file, from which its own constants may still be read."""
    part = path.with_name(f"{path.name}.part")
    part.write_bytes(pack(model))
    part.replace(path)


def pack(model: Any) -> memoryview:
    """The bytes of a `ModelT` of the TFLite schema, constants aligned."""
    constants = sum(len(b.data) for b in model.buffers if b.data is not None)
    # Large enough from the start: growing, the builder would hold three times what it has.
    builder = _AlignedBuilder(constants + _BESIDE_CONSTANTS)
    builder.Finish(model.Pack(builder), FILE_IDENTIFIER)
    return memoryview(builder.Bytes)[builder.Head() :]


def _rename(graph: TfliteGraph, outputs: Sequence[str]) -> None:
    for operator in graph.operators:
        layer = _layer(graph, operator)
        tensors = [int(index) for index in (*operator.inputs, *operator.outputs) if index >= 0]
        own = tensors if graph.op_name(operator) in WEIGHTED else operator.outputs
        for index in own:
            tensor: Any = graph.tensors[int(index)]
            tensor.name = f"{layer}:{int(index)}".encode()
    for index in graph.subgraph.inputs:
        graph.tensors[int(index)].name = b"input"
    for name, index in zip(outputs, _model_order(graph), strict=True):
        graph.tensors[index].name = name.encode()


def _flatten_biases(graph: TfliteGraph) -> None:
    """Give biases their one axis.

    Where a scale behind the layer was multiplied into it, the bias has the scale's axes, [1, 1, 1,
    C]; quantized, its C scales would lie along the first of them.
    """
    for operator in graph.operators:
        place = BIAS_INPUTS.get(graph.op_name(operator))
        if place is not None and len(operator.inputs) > place and operator.inputs[place] >= 0:
            bias: Any = graph.tensors[int(operator.inputs[place])]
            if len(bias.shape) > 1:
                bias.shape = [int(np.prod(bias.shape))]


def _model_order(graph: TfliteGraph) -> list[int]:
    """Output tensors in the order in which the model returns them, which only the signature keeps.

    litert-torch calls them output_0, output_1 and so on there.
    """
    entries = graph.model.signatureDefs[0].outputs
    places = {int(entry.name.decode().rpartition("_")[2]): entry.tensorIndex for entry in entries}
    return [int(places[place]) for place in sorted(places)]


def _layer(graph: TfliteGraph, operator: Any) -> str:
    """The module path of a weighted layer, the operator's name for all others."""
    if graph.op_name(operator) not in WEIGHTED:
        return graph.op_name(operator).lower()
    names = [graph.tensors[int(i)].name.decode() for i in (operator.inputs[1], operator.outputs[0])]
    found = [layer_name(name) for name in names]
    return next((name for name in found if name not in names), found[0])
