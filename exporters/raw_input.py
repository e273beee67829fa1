"""Files that take uint8 pixels: operators that normalise them stand before all others.

It isn't folded into the first convolution: borders are padded with zeros after normalisation, and a
folded mean would be missing there.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from exporters.onnx_file import read_model, write_model
from exporters.quiet import quiet_step

if TYPE_CHECKING:
    import onnx

    from exporters.inspect_tflite import TfliteGraph

NORMALISED = "normalised"


@dataclass(frozen=True)
class Normalisation:
    """From pixels to what the network takes: (pixel * scale - mean) / std, channel by channel.

    Attributes:
        mean, std: one value per channel; std above 0.
        scale: of pixels, 1 / 255 to begin with.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    scale: float = 1 / 255

    @property
    def factor(self) -> np.ndarray:
        """float32 [C]; normalised = pixel * factor + shift."""
        return (self.scale / np.array(self.std)).astype(np.float32)

    @property
    def shift(self) -> np.ndarray:
        """float32 [C]."""
        return (-np.array(self.mean) / np.array(self.std)).astype(np.float32)

    def pixels(self, batch: np.ndarray) -> np.ndarray:
        """Normalised float32 [b, C, H, W] back to the uint8 pixels that it was made of."""
        mean, std = (np.reshape(value, (-1, 1, 1)) for value in (self.mean, self.std))
        return np.clip(np.rint((batch * std + mean) / self.scale), 0, 255).astype(np.uint8)

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "mean": list(self.mean), "std": list(self.std)}


def take_pixels(path: Path, normalisation: Normalisation) -> None:
    """Rewrite a file, ONNX or TFLite, so that it takes uint8 pixels in place of its own input.

    Layout and name of the input stay: NCHW in ONNX, NHWC in TFLite.
    """
    with quiet_step(f"let {path.name} take pixels"):
        rewrite = _onnx if path.suffix == ".onnx" else _tflite
        rewrite(path, normalisation)


def _onnx(path: Path, normalisation: Normalisation) -> None:
    """pixels -> Cast -> Mul -> Add -> what was the input."""
    from onnx import TensorProto, helper, numpy_helper

    model = read_model(path)
    graph = model.graph
    name = graph.input[0].name
    for node in graph.node:
        node.input[:] = [NORMALISED if read == name else read for read in node.input]
    constants = {"factor": normalisation.factor, "shift": normalisation.shift}
    for key, value in constants.items():
        column = value.reshape(1, -1, 1, 1)
        graph.initializer.append(numpy_helper.from_array(column, f"{NORMALISED}_{key}"))
    nodes = [
        helper.make_node("Cast", [name], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["pixels", f"{NORMALISED}_factor"], ["scaled"]),
        helper.make_node("Add", ["scaled", f"{NORMALISED}_shift"], [NORMALISED]),
    ]
    _refuse_taken_names(model, {name for node in nodes for name in node.output})
    nodes += graph.node
    del graph.node[:]
    graph.node.extend(nodes)
    graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8
    write_model(model, path)


def _refuse_taken_names(model: onnx.ModelProto, new: set[str]) -> None:
    taken = {name for node in model.graph.node for name in node.output} & new
    if taken:
        raise ValueError(f"tensors of the graph are already called {', '.join(sorted(taken))}")


def _tflite(path: Path, normalisation: Normalisation) -> None:
    """pixels -> CAST -> MUL -> ADD (-> QUANTIZE) -> what was the input."""
    from exporters.inspect_tflite import TfliteGraph
    from exporters.tflite_pack import put_in_place

    graph = TfliteGraph(path)
    entry = int(graph.subgraph.inputs[0])
    old: Any = graph.tensors[entry]
    builder = _Front(graph, old.shape)
    pixels = builder.tensor(old.name, "UINT8")
    old.name = NORMALISED.encode()
    cast = builder.add("CAST", [pixels], builder.tensor(b"pixels", "FLOAT32"))
    factor = builder.constant(b"factor", normalisation.factor)
    scaled = builder.add("MUL", [cast, factor], builder.tensor(b"scaled", "FLOAT32"))
    shift = builder.constant(b"shift", normalisation.shift)
    if graph.dtype(entry) == "float32":
        builder.add("ADD", [scaled, shift], entry)
    else:
        shifted = builder.add("ADD", [scaled, shift], builder.tensor(b"shifted", "FLOAT32"))
        builder.add("QUANTIZE", [shifted], entry)
    graph.subgraph.operators = [*builder.operators, *graph.operators]
    graph.subgraph.inputs = np.array([pixels], np.int32)
    for signature in graph.model.signatureDefs or ():
        for given in signature.inputs:
            given.tensorIndex = pixels
    put_in_place(path, graph.model)


class _Front:
    """Operators to stand before those of a graph, with tensors of the input's shape."""

    def __init__(self, graph: TfliteGraph, shape: Any) -> None:
        from ai_edge_litert import schema_py_generated as schema

        self._schema: Any = schema
        self._graph, self._shape = graph, shape
        self.operators: list[Any] = []

    def tensor(self, name: bytes, dtype: str) -> int:
        tensor = self._schema.TensorT()
        tensor.name, tensor.shape, tensor.buffer = name, self._shape, 0
        tensor.type = getattr(self._schema.TensorType, dtype)
        self._graph.tensors.append(tensor)
        return len(self._graph.tensors) - 1

    def constant(self, name: bytes, value: np.ndarray) -> int:
        index = self.tensor(name, "FLOAT32")
        buffer = self._schema.BufferT()
        buffer.data = value.view(np.uint8)
        self._graph.model.buffers.append(buffer)
        tensor: Any = self._graph.tensors[index]
        tensor.shape = np.array(value.shape, np.int32)
        tensor.buffer = len(self._graph.model.buffers) - 1
        return index

    def add(self, name: str, inputs: list[int], output: int) -> int:
        """Append an operator; returns `output`."""
        operator = self._schema.OperatorT()
        operator.opcodeIndex = self._code(name)
        operator.inputs, operator.outputs = inputs, [output]
        kind = f"{name.title()}Options"
        operator.builtinOptionsType = getattr(self._schema.BuiltinOptions, kind)
        operator.builtinOptions = getattr(self._schema, f"{kind}T")()
        self.operators.append(operator)
        return output

    def _code(self, name: str) -> int:
        number = getattr(self._schema.BuiltinOperator, name)
        codes = self._graph.model.operatorCodes
        for index, code in enumerate(codes):
            if max(code.builtinCode, code.deprecatedBuiltinCode) == number:
                return index
        code = self._schema.OperatorCodeT()
        code.builtinCode = code.deprecatedBuiltinCode = number
        code.version = 1
        codes.append(code)
        return len(codes) - 1
