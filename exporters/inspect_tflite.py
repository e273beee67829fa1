"""Read a TFLite file back: tensors, weight bytes, activation memory, layers that stayed float."""

from __future__ import annotations

import mmap
import os
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from exporters.artifacts import Inspection, TensorSpec
from exporters.liveness import Schedule, Step

WEIGHTED = (
    "CONV_2D",
    "DEPTHWISE_CONV_2D",
    "TRANSPOSE_CONV",
    "FULLY_CONNECTED",
    "BATCH_MATMUL",
)
CONVS = WEIGHTED[:3]
VIEWS = ("RESHAPE", "SQUEEZE", "EXPAND_DIMS")
DTYPE_BITS = {"int2": 2, "int4": 4, "uint4": 4, "bool": 8}


class TfliteGraph:
    """The main subgraph of a TFLite file, with names resolved.

    Constants stay in the file, which must not be written to meanwhile; it may be replaced.
    """

    def __init__(self, path: Path) -> None:
        from ai_edge_litert import schema_py_generated as schema

        content = _mapped(path)
        self.model: Any = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
        for buffer in self.model.buffers:
            if buffer.offset > 1:  # the data stands behind the flatbuffer
                end = buffer.offset + buffer.size
                buffer.data = np.frombuffer(memoryview(content)[buffer.offset : end], np.uint8)
            buffer.offset = buffer.size = 0
        self.subgraph: Any = self.model.subgraphs[0]
        self.operators: list[Any] = self.subgraph.operators
        self.tensors: list[Any] = self.subgraph.tensors

    def op_name(self, operator: Any) -> str:
        """Such as CONV_2D; the custom code's own name for a custom operator."""
        code = self.model.operatorCodes[operator.opcodeIndex]
        name = _names("BuiltinOperator")[max(code.builtinCode, code.deprecatedBuiltinCode)]
        return code.customCode.decode() if name == "CUSTOM" else name

    def dtype(self, index: int) -> str:
        return _names("TensorType")[self.tensors[index].type].lower()

    def is_constant(self, index: int) -> bool:
        data = self.model.buffers[self.tensors[index].buffer].data
        return data is not None and len(data) > 0

    def constants(self) -> set[str]:
        """Names of the tensors that the file itself holds."""
        return {
            tensor.name.decode()
            for index, tensor in enumerate(self.tensors)
            if self.is_constant(index)
        }

    def size_bytes(self, index: int) -> int:
        """Bytes of a tensor at the batch size of the file."""
        shape = self.tensors[index].shape
        count = int(np.prod([max(1, d) for d in shape])) if shape is not None else 1
        bits = DTYPE_BITS.get(self.dtype(index)) or np.dtype(self.dtype(index)).itemsize * 8
        return (count * bits + 7) // 8


def _mapped(path: Path) -> bytes | mmap.mmap:
    """The content of a file, read where it is looked at."""
    with path.open("rb") as file:
        empty = os.fstat(file.fileno()).st_size == 0
        return b"" if empty else mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def inspect_tflite(path: Path, outputs: Sequence[str] = ()) -> Inspection:
    """Read a TFLite file back.

    Args:
        outputs: names in the order wanted; a converter may order several outputs otherwise.
    """
    graph = TfliteGraph(path)
    specs = [_spec(graph, int(index), layout=None) for index in graph.subgraph.outputs]
    if len(specs) > 1 and outputs:
        specs.sort(key=lambda spec: outputs.index(spec.name))
    counts = Counter(graph.op_name(op) for op in graph.operators)
    return Inspection(
        input=_spec(graph, int(graph.subgraph.inputs[0]), layout="NHWC"),
        output=specs[0],
        more_outputs=tuple(specs[1:]),
        weight_bytes=_weight_bytes(graph),
        activation_bytes=max(_schedule(graph).live_bytes()),
        float_layers=tuple(
            graph.tensors[int(op.inputs[1])].name.decode().partition(":")[0]
            for op in graph.operators
            if graph.op_name(op) in WEIGHTED and not _on_integers(graph, op)
        ),
        float_weights=tuple(
            graph.tensors[int(op.inputs[1])].name.decode().partition(":")[0]
            for op in graph.operators
            if graph.op_name(op) in WEIGHTED
            and graph.is_constant(int(op.inputs[1]))
            and graph.dtype(int(op.inputs[1])) == "float32"
        ),
        convs=sum(counts[name] for name in CONVS),
        fused_integer_convs=None,
        op_counts=dict(counts),
    )


def layer_name(tensor_name: str) -> str:
    """Module path from a litert-torch tensor name, which lists Class_attribute per level.

    The name itself where it has no such path.

    pkg.Wrapper/pkg.Net_wrapped/...Sequential_layer3/pkg.Block_2/...Conv2d_conv2;1
    -> layer3.2.conv2
    """
    parts = [part for part in tensor_name.split(";") if "/" in part]
    if not parts:
        return tensor_name
    deepest = max(parts, key=lambda part: part.count("/"))
    levels = [level.rsplit(".", 1)[-1].partition("_")[2] for level in deepest.split("/")[2:]]
    return ".".join(level for level in levels if level) or tensor_name


def _on_integers(graph: TfliteGraph, operator: Any) -> bool:
    """True where data, weight and result of a layer are integers of 8 bits, or data of 16."""
    tensors = (*operator.inputs[:2], operator.outputs[0])
    if graph.op_name(operator) == "TRANSPOSE_CONV":
        tensors = (*operator.inputs[1:3], operator.outputs[0])
    return all(graph.dtype(int(index)) in ("int8", "uint8", "int16") for index in tensors)


def _weight_bytes(graph: TfliteGraph) -> dict[str, int]:
    """Bytes of constants by dtype; a buffer that tensors share counts once."""
    sizes: dict[str, int] = {}
    seen: set[int] = set()
    for index, tensor in enumerate(graph.tensors):
        if graph.is_constant(index) and tensor.buffer not in seen:
            seen.add(tensor.buffer)
            size = len(graph.model.buffers[tensor.buffer].data)
            sizes[graph.dtype(index)] = sizes.get(graph.dtype(index), 0) + size
    return sizes


def tflite_schedule(path: Path) -> Schedule:
    """Return what liveness counts in a file."""
    return _schedule(TfliteGraph(path))


def _schedule(graph: TfliteGraph) -> Schedule:
    """What liveness counts at batch 1. A reshape is a view of its input, as in the runtime."""
    home: dict[int, int] = {}
    constants = {-1} | {i for i in range(len(graph.tensors)) if graph.is_constant(i)}
    steps = []
    for operator in graph.operators:
        inputs = [int(i) for i in operator.inputs if int(i) not in constants]
        outputs = [int(i) for i in operator.outputs]
        if not inputs:  # weights widened from float16, once and for all
            constants.update(outputs)
            continue
        if graph.op_name(operator) in VIEWS and inputs:
            home[outputs[0]] = home.get(inputs[0], inputs[0])
        steps.append(
            Step(
                tuple(str(home.get(i, i)) for i in inputs),
                tuple(str(home.get(i, i)) for i in outputs),
                graph.op_name(operator),
            )
        )
    sizes = {str(i): graph.size_bytes(i) for i in range(len(graph.tensors))}
    return Schedule(
        tuple(steps),
        sizes,
        tuple(str(i) for i in graph.subgraph.inputs),
        tuple(str(home.get(int(i), int(i))) for i in graph.subgraph.outputs),
    )


def _spec(graph: TfliteGraph, index: int, *, layout: str | None) -> TensorSpec:
    tensor = graph.tensors[index]
    scale = zero_point = None
    if tensor.quantization is not None and tensor.quantization.scale is not None:
        scale = float(tensor.quantization.scale[0])
        zero_point = int(tensor.quantization.zeroPoint[0])
    return TensorSpec(
        name=tensor.name.decode(),
        shape=tuple(int(d) for d in tensor.shape),
        dtype=graph.dtype(index),
        scale=scale,
        zero_point=zero_point,
        layout=layout,
    )


@cache
def _names(enumeration: str) -> dict[int, str]:
    from ai_edge_litert import schema_py_generated as schema

    members = vars(getattr(schema, enumeration)).items()
    return {value: name for name, value in members if not name.startswith("_")}
