"""Read an ONNX file back: tensors, weight bytes, activation memory, what runs on integers."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from exporters.artifacts import Inspection, TensorSpec
from exporters.liveness import Schedule, Step
from exporters.onnx_file import LARGE_BYTES, read_model, session_source
from exporters.onnx_qdq import Graph
from exporters.onnx_tidy import LAYERS
from exporters.quiet import quiet_step

if TYPE_CHECKING:
    import onnx

INTEGER_CONVS = ("QLinearConv", "ConvInteger")
PACKED_BITS = {"int4": 4, "uint4": 4}
VIEWS = ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Dropout")
UNARY = ("Relu", "Clip", "LeakyRelu", "Sigmoid", "HardSigmoid", "HardSwish", "Tanh")
BINARY = ("Add", "Sub", "Mul", "Div")
_OPTIMIZED_WEIGHTS = "session.optimized_model_external_initializers"


def inspect_onnx(path: Path, *, count_fused: bool = True, int8_on_arm: bool = False) -> Inspection:
    """Read an ONNX file back.

    Args:
        count_fused: optimize the graph with onnxruntime to count integer convolutions.
        int8_on_arm: count integer convolutions as onnxruntime would on Arm, where int8
            activations are fused; on x86 it fuses uint8 activations only.
    """
    model = read_model(path)
    counts = Counter(node.op_type for node in model.graph.node)
    return Inspection(
        input=_spec(model.graph.input[0], layout="NCHW"),
        output=_spec(model.graph.output[0], layout=None),
        more_outputs=tuple(_spec(output, layout=None) for output in model.graph.output[1:]),
        weight_bytes=_weight_bytes(model),
        activation_bytes=max(_schedule(model).live_bytes()),
        float_layers=_float_layers(model),
        float_weights=_float_weights(model),
        convs=counts["Conv"] + counts["ConvInteger"],
        fused_integer_convs=_fused_integer_convs(path, int8_on_arm) if count_fused else None,
        op_counts=dict(counts),
    )


def optimized_onnx(path: Path, *, int8_on_arm: bool = False) -> onnx.ModelProto:
    """The graph that onnxruntime makes of a file, on x86 or as it would on Arm.

    Raises:
        ExportError: onnxruntime can't load the file.
    """
    with quiet_step("optimize the ONNX graph"), tempfile.TemporaryDirectory() as folder:
        import onnxruntime

        optimized = Path(folder) / "optimized.onnx"
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(optimized)
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        if int8_on_arm:
            options.add_session_config_entry("session.qdqisint8allowed", "1")
        for key, value in (("file_name", "weights"), ("min_size_in_bytes", str(LARGE_BYTES))):
            options.add_session_config_entry(f"{_OPTIMIZED_WEIGHTS}_{key}", value)
        source = session_source(read_model(path), options)
        onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        return read_model(optimized)


def _fused_integer_convs(path: Path, int8_on_arm: bool) -> int:
    """Convolutions that run on integers in onnxruntime's optimized graph."""
    nodes = optimized_onnx(path, int8_on_arm=int8_on_arm).graph.node
    return sum(node.op_type in INTEGER_CONVS for node in nodes)


def _weight_bytes(model: onnx.ModelProto) -> dict[str, int]:
    """Bytes of constants by dtype."""
    sizes: dict[str, int] = {}
    for array in Graph(model).constants.values():
        sizes[array.dtype.name] = sizes.get(array.dtype.name, 0) + constant_bytes(array)
    return sizes


def constant_bytes(array: np.ndarray) -> int:
    """Bytes that a constant takes in a file, where those of few bits are packed."""
    bits = PACKED_BITS.get(array.dtype.name, 8 * array.itemsize)
    return (array.size * bits + 7) // 8


def _float_layers(model: onnx.ModelProto) -> tuple[str, ...]:
    """Convolutions and linear layers without a DequantizeLinear at both data and weight."""
    graph = Graph(model)
    return tuple(
        node.name or node.output[0]
        for node in model.graph.node
        if node.op_type in LAYERS
        and not all(graph.source(name, "DequantizeLinear") for name in node.input[:2])
    )


def _float_weights(model: onnx.ModelProto) -> tuple[str, ...]:
    """Convolutions and linear layers whose weight is stored as float32."""
    constants = Graph(model).constants
    return tuple(
        node.name or node.output[0]
        for node in model.graph.node
        if node.op_type in LAYERS
        and node.input[1] in constants
        and constants[node.input[1]].dtype == np.float32
    )


def onnx_schedule(path: Path) -> Schedule:
    """Return what liveness counts in a file."""
    return _schedule(read_model(path))


def _schedule(model: onnx.ModelProto) -> Schedule:
    """What liveness counts at batch 1: the buffers that a fusing runtime needs.

    Between Q/DQ pairs the quantized tensor is what exists: a DequantizeLinear's result is its
    input, and a tensor that only a QuantizeLinear reads is that node's result. Views share their
    input's buffer; element-wise operators write in place where nothing else reads the input.
    """
    graph = Graph(model)
    sizes = _sizes_at_batch_1(model)
    home = _homes(graph, sizes)
    steps = []
    for node in model.graph.node:
        steps.append(
            Step(
                tuple({home.get(i, i) for i in node.input if i in sizes}),
                tuple({home.get(o, o) for o in node.output if o in sizes}),
                node.op_type,
            )
        )
    outputs = tuple(home.get(output.name, output.name) for output in model.graph.output)
    return Schedule(tuple(steps), sizes, (model.graph.input[0].name,), outputs)


def _homes(graph: Graph, sizes: dict[str, int]) -> dict[str, str]:
    """The tensor whose buffer each tensor lives in, where that isn't its own."""
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        while name in parent:
            name = parent[name]
        return name

    taken: set[str] = set()  # results that already took over an operand's buffer
    for node in graph.model.graph.node:
        if not node.output or node.output[0] not in sizes:
            continue
        result = node.output[0]
        operands = [name for name in node.input if name in sizes]
        if node.op_type == "DequantizeLinear" or node.op_type in VIEWS:
            if operands and operands[0] != root(result) and result not in graph.outputs:
                parent[result] = root(operands[0])
            continue
        in_place = node.op_type in (*UNARY, *BINARY, "QuantizeLinear")
        for name in operands if in_place else ():
            movable = name not in parent and graph.sole_consumer(name) is not None
            same_shape = node.op_type not in BINARY or sizes[name] == sizes[result]
            is_input = name not in graph.producer
            if movable and same_shape and not is_input and result not in taken:
                parent[name] = result
                taken.add(result)
    return {name: root(name) for name in parent}


def _sizes_at_batch_1(model: onnx.ModelProto) -> dict[str, int]:
    """Bytes of every activation tensor at batch 1."""
    from onnx import helper

    graph = inferred_at_batch_1(model)
    constants = set(Graph(model).constants)
    for node in graph.node:  # what is computed from constants alone is folded ahead of time
        if all(name in constants for name in node.input if name):
            constants.update(node.output)
    sizes = {}
    for value in (*graph.input, *graph.value_info, *graph.output):
        tensor = value.type.tensor_type
        count = int(np.prod([d.dim_value or 1 for d in tensor.shape.dim]))
        dtype = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.elem_type))
        if value.name not in constants:
            sizes[value.name] = count * dtype.itemsize
    return sizes


def inferred_at_batch_1(model: onnx.ModelProto) -> onnx.GraphProto:
    """The graph with the shapes that its tensors have for one image."""
    import onnx
    from onnx import shape_inference

    single = onnx.ModelProto()
    single.CopyFrom(model)
    del single.graph.value_info[:]
    single.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    for output in single.graph.output:
        output.type.tensor_type.ClearField("shape")
    return shape_inference.infer_shapes(single, data_prop=True).graph


def _spec(value: onnx.ValueInfoProto, *, layout: str | None) -> TensorSpec:
    from onnx import helper

    tensor = value.type.tensor_type
    return TensorSpec(
        name=value.name,
        shape=tuple(d.dim_value if d.HasField("dim_value") else -1 for d in tensor.shape.dim),
        dtype=np.dtype(helper.tensor_dtype_to_np_dtype(tensor.elem_type)).name,
        layout=layout,
    )
