"""Layers of an ONNX file: bytes and MACs from the graph, times from onnxruntime's profile."""

from __future__ import annotations

import dataclasses
import json
import os
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from compress_export.gate.layers import Layer

if TYPE_CHECKING:
    import onnx

    from exporters.onnx_qdq import Graph

_LAYERS = (
    "Conv", "ConvTranspose", "Gemm", "MatMul",
    "ConvInteger", "MatMulInteger", "QLinearConv", "QLinearMatMul",
)  # fmt: skip
# Where the weight stands among the inputs of the operators that take scales too.
_WEIGHT_AT = {"QLinearConv": 3, "QLinearMatMul": 3}
_KERNEL = "_kernel_time"
_WARMUP = 5


def onnx_layers(path: Path) -> tuple[Layer, ...]:
    """Return the layers in the order of the graph, without times.

    A constant that several layers read, such as a zero point, counts for the first.
    """
    from exporters.inspect_onnx import constant_bytes
    from exporters.onnx_file import read_model
    from exporters.onnx_qdq import Graph

    model = read_model(path)  # refuses side files that lie outside of the file's folder
    graph, shapes, counted = Graph(model), _shapes_at_batch_1(model), set[str]()
    found = []
    for node in model.graph.node:
        if node.op_type not in _LAYERS:
            continue
        constants = _constants_of(graph, node) - counted
        counted |= constants
        found.append(
            Layer(
                node.name or node.output[0],
                node.op_type,
                sum(constant_bytes(graph.constants[name]) for name in constants),
                _macs(node, shapes),
            )
        )
    return tuple(found)


def _constants_of(graph: Graph, node: onnx.NodeProto) -> set[str]:
    """Constants that reach a node directly or through operators that read nothing else."""
    found: set[str] = set()
    for name in node.input:
        found |= _constants_behind(graph, name) or set()
    return found


def _constants_behind(graph: Graph, name: str) -> set[str] | None:
    """None where the tensor depends on the image."""
    if name in graph.constants:
        return {name}
    producer = graph.producer.get(name)
    if producer is None:
        return None
    found: set[str] = set()
    for source in filter(None, producer.input):
        behind = _constants_behind(graph, source)
        if behind is None:
            return None
        found |= behind
    return found


def _macs(node: onnx.NodeProto, shapes: Mapping[str, tuple[int, ...]]) -> int | None:
    """Weights times places that they are applied at; contracted axis times results otherwise."""
    data = shapes.get(node.input[0])
    weight = shapes.get(node.input[_WEIGHT_AT.get(node.op_type, 1)])
    result = shapes.get(node.output[0])
    if not data or not weight or not result or 0 in (*data, *weight, *result):
        return None
    if node.op_type == "ConvTranspose":
        return int(np.prod(weight) * np.prod(data[2:]))
    if "Conv" in node.op_type:
        return int(np.prod(weight) * np.prod(result[2:]))
    return int(np.prod(result) * data[-1])


def _shapes_at_batch_1(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    from exporters.inspect_onnx import inferred_at_batch_1

    graph = inferred_at_batch_1(model)
    shapes = {
        value.name: tuple(d.dim_value for d in value.type.tensor_type.shape.dim)
        for value in (*graph.input, *graph.value_info, *graph.output)
    }
    return shapes | {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}


def profile_ms(path: Path, *, threads: int, runs: int) -> dict[str, float]:
    """Return the median time of each operator that onnxruntime runs, by its name."""
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        options.enable_profiling = True
        options.profile_file_prefix = os.path.join(folder, "profile")  # noqa: PTH118 (text)
        session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
        image = _noise(session.get_inputs()[0])
        for _ in range(_WARMUP + runs):
            session.run(None, image)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    found: dict[str, list[float]] = defaultdict(list)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith(_KERNEL):
            found[event["name"].removesuffix(_KERNEL)].append(event["dur"] / 1000)
    return {name: median(times[_WARMUP:] or times) for name, times in found.items()}


def _noise(spec: Any) -> dict[str, np.ndarray]:
    """One image for onnxruntime's description of an input (`name`, `shape`, `type`)."""
    kinds = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(uint8)": "uint8"}
    shape = [size if isinstance(size, int) else 1 for size in spec.shape]
    noise = np.random.default_rng(0).standard_normal(shape)
    return {spec.name: noise.astype(kinds.get(str(spec.type), "float32"))}


def with_times(layers: Sequence[Layer], times_ms: Mapping[str, float]) -> tuple[Layer, ...]:
    """Give each layer the time of the operators that carry its name.

    onnxruntime names what it makes of a layer after it, as in "conv1", "conv1_bias_dq".
    """
    times = dict.fromkeys((layer.name for layer in layers), 0.0)
    seen: set[str] = set()
    for operator, milliseconds in times_ms.items():
        owners = [n for n in times if operator == n or operator.startswith((f"{n}_", f"{n}/"))]
        if owners:
            owner = max(owners, key=len)
            times[owner] += milliseconds
            seen.add(owner)
    return tuple(
        dataclasses.replace(layer, time_ms=times[layer.name] if layer.name in seen else None)
        for layer in layers
    )
