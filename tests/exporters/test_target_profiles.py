"""Which profile a board's files keep to, and every rule of CPUs, Edge TPU and microcontrollers."""

from __future__ import annotations

import json
from pathlib import Path

import flatbuffers
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from boards import load_board, shipped_boards
from exporters.artifacts import Exported
from exporters.checks import check_float_layers
from exporters.errors import CheckError
from exporters.inspect_tflite import TfliteGraph, inspect_tflite
from exporters.onnx_extremes import quantized
from exporters.profiles import edge_tpu, tflite_micro
from exporters.profiles.arm import onnx_violations, slow_remarks
from exporters.profiles.profile import CHECKED_BY_RULE
from exporters.profiles.select import profile_for
from exporters.profiles.tflite_rules import litert_violations
from exporters.profiles.x86 import vnni_violations

PROFILES = {
    "coral": {"tflite": "edge-tpu"},
    "esp32s3": {"tflite": "tflite-micro"},
    "jetson": {"onnx": "tensorrt", "tflite": "arm-dotprod"},
    "orin-nano": {"onnx": "tensorrt", "tflite": "arm-dotprod"},
    "rpi4": {"onnx": "arm-without-dotprod", "tflite": "arm-without-dotprod"},
    "rpi5": {"onnx": "arm-dotprod", "tflite": "arm-dotprod"},
    "stm32f746": {"tflite": "tflite-micro"},
    "stm32h747": {"tflite": "tflite-micro"},
    "x86-64": {"onnx": "x86-vnni", "tflite": "x86-vnni"},
    "x86-64-avx2": {"onnx": "x86-without-vnni", "tflite": "x86-without-vnni"},
}
NOT_ON_A_CPU = {"tensorrt", "edge-tpu", "tflite-micro"}


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16])
@pytest.mark.parametrize("axis", [0, 1, None])
def test_integers_of_weights_are_those_of_onnx(dtype, axis):
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(6, 4, 3, 3)).astype(np.float32)
    count = () if axis is None else (weight.shape[axis],)
    scale = rng.uniform(0.01, 0.03, count).astype(np.float32)
    weight.flat[:4] = scale.min() * np.array([0.5, 1.5, 2.5, -0.5], np.float32)  # halves
    zero_point = rng.integers(0, 100, count).astype(dtype)
    node = helper.make_node("QuantizeLinear", ["w", "s", "z"], ["y"], axis=axis or 0)
    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)
        for name, x in (("w", weight), ("s", scale), ("z", zero_point))
    ]
    output = helper.make_tensor_value_info("y", inputs[2].type.tensor_type.elem_type, None)
    graph = helper.make_graph([node], "quantize", inputs, [output])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    (expected,) = session.run(None, {"w": weight, "s": scale, "z": zero_point})
    np.testing.assert_array_equal(quantized(weight, scale, zero_point, axis or 0), expected)


def test_every_board_with_int8_has_its_profile():
    boards = [load_board(name) for name in shipped_boards()]
    found = {
        board.id: {format: profile_for(board, format).name for format in board.formats}
        for board in boards
        if "int8" in board.precisions
    }
    assert found == PROFILES


@pytest.mark.parametrize("board_id", sorted(PROFILES))
def test_what_no_cpu_core_times_is_not_benchable(board_id):
    for format, name in PROFILES[board_id].items():
        profile = profile_for(load_board(board_id), format)
        assert profile.benchable == (name not in NOT_ON_A_CPU)


def test_the_manifest_says_what_the_check_stands_on(pc_folder):
    file = pc_folder.file("slim.int8.onnx")
    entry = json.loads(json.dumps(file.to_json()))
    assert entry["profile"] == {
        "name": "x86-vnni",
        "benchable": True,
        "remarks": [],
        "status": CHECKED_BY_RULE,
    }
    assert Exported.from_json(entry) == file
    assert pc_folder.file("slim.float32.onnx").to_json()["profile"] is None
    del entry["profile"]  # a folder of an earlier release
    assert Exported.from_json(entry).profile is None


# ONNX ---------------------------------------------------------------------------------------------


@pytest.fixture
def model(pc_folder) -> onnx.ModelProto:
    return onnx.load(str(pc_folder.path / "slim.int8.onnx"))


def of_mutated(model: onnx.ModelProto, folder: Path) -> list[str]:
    path = folder / "mutated.onnx"
    onnx.save(model, str(path))
    assert vnni_violations(path) == onnx_violations(path)
    return vnni_violations(path)


def maker(model: onnx.ModelProto, name: str) -> onnx.NodeProto:
    return next(node for node in model.graph.node if name in node.output)


def conv_input(model: onnx.ModelProto, place: int) -> onnx.NodeProto:
    """The DequantizeLinear at an input of the first convolution."""
    conv = next(node for node in model.graph.node if node.op_type == "Conv")
    return maker(model, conv.input[place])


def constant(model: onnx.ModelProto, node: onnx.NodeProto, place: int) -> np.ndarray:
    name = node.input[place]
    return numpy_helper.to_array(next(c for c in model.graph.initializer if c.name == name))


def replace(model: onnx.ModelProto, node: onnx.NodeProto, place: int, values: np.ndarray) -> None:
    name = f"new_{len(model.graph.initializer)}"
    model.graph.initializer.append(numpy_helper.from_array(values, name))
    node.input[place] = name


def test_exported_files_keep_to_it(model, tmp_path):
    assert of_mutated(model, tmp_path) == []


def test_onnx_weights_are_symmetric(model, tmp_path):
    node = conv_input(model, 1)
    replace(model, node, 2, np.full(8, 3, np.int8))
    assert of_mutated(model, tmp_path) == ["weight of conv1 has a zero point other than 0"]


def test_onnx_weights_hold_no_minus_128(model, tmp_path):
    node = conv_input(model, 1)
    values = constant(model, node, 0).copy()
    values.flat[5] = -128
    replace(model, node, 0, values)
    assert of_mutated(model, tmp_path) == ["weight of conv1 holds -128"]


def test_onnx_biases_follow_input_and_weight(model, tmp_path):
    node = conv_input(model, 2)
    replace(model, node, 1, constant(model, node, 1) * np.float32(1.01))
    (line,) = of_mutated(model, tmp_path)
    assert line == "bias of conv1 is not scaled by input scale x weight scale"


def test_onnx_scales_are_positive(model, tmp_path):
    node = next(node for node in model.graph.node if node.op_type == "QuantizeLinear")
    replace(model, node, 1, np.array(0, np.float32))
    assert any(
        "a scale that is no positive constant" in line for line in of_mutated(model, tmp_path)
    )


def test_arm_without_dot_product_is_told(pc_folder):
    (remark,) = slow_remarks(pc_folder.path / "slim.int8.onnx")
    assert "little time" in remark


# TFLite -------------------------------------------------------------------------------------------


@pytest.fixture
def graph(pc_folder) -> TfliteGraph:
    """A fresh copy to break."""
    return TfliteGraph(pc_folder.path / "slim.int8.tflite")


def saved(graph: TfliteGraph, folder: Path) -> Path:
    builder = flatbuffers.Builder(1024)
    builder.Finish(graph.model.Pack(builder), b"TFL3")
    path = folder / "mutated.tflite"
    path.write_bytes(bytes(builder.Output()))
    return path


def first(graph: TfliteGraph, name: str):
    return next(operator for operator in graph.operators if graph.op_name(operator) == name)


def tensor(graph: TfliteGraph, operator, place: int):
    return graph.tensors[int(operator.inputs[place])]


def rename(graph: TfliteGraph, operator, code: int) -> None:
    """Give one operator another builtin code."""
    old = graph.model.operatorCodes[operator.opcodeIndex]
    new = type(old)()
    new.builtinCode, new.deprecatedBuiltinCode = code, min(code, 127)
    new.version, new.customCode = old.version, None
    graph.model.operatorCodes.append(new)
    operator.opcodeIndex = len(graph.model.operatorCodes) - 1


def test_tflite_files_keep_to_it(pc_folder):
    path = pc_folder.path / "slim.int8.tflite"
    assert litert_violations(path) == []
    assert tflite_micro.violations(path, per_channel_linear=True) == []
    assert edge_tpu.violations(path, per_channel_linear=True) == []


def test_linear_layers_per_channel_are_refused_where_they_are_computed_wrongly(pc_folder):
    path = pc_folder.path / "slim.int8.tflite"
    for check in (tflite_micro.violations, edge_tpu.violations):
        (line,) = check(path, per_channel_linear=False)
        assert line.startswith("weight of FULLY_CONNECTED -> ")
        assert line.endswith("has a scale per output, one is allowed")


def test_float_files_are_refused(pc_folder):
    path = pc_folder.path / "slim.float32.tflite"
    for check in (tflite_micro.violations, edge_tpu.violations):
        lines = check(path, per_channel_linear=True)
        assert any(line.endswith("is float32, int8 in and out") for line in lines)
        assert sum(line.endswith(" is float32") for line in lines) > 20
    with pytest.raises(CheckError, match="weights of conv1, .* are float32"):
        check_float_layers(path.name, inspect_tflite(path), ["linear"])


def test_dynamic_shapes_are_refused(graph, tmp_path):
    graph.tensors[int(graph.subgraph.inputs[0])].shapeSignature = np.array(
        [-1, 16, 16, 3], np.int32
    )
    path = saved(graph, tmp_path)
    for check in (tflite_micro.violations, edge_tpu.violations):
        (line,) = check(path, per_channel_linear=True)
        assert line.endswith("has a dynamic shape")


def test_a_batch_is_refused_by_the_edge_tpu(graph, tmp_path):
    graph.tensors[int(graph.subgraph.inputs[0])].shape = np.array([2, 16, 16, 3], np.int32)
    (line,) = edge_tpu.violations(saved(graph, tmp_path), per_channel_linear=True)
    assert line.endswith("has more than 3 dimensions above 1")


def test_operators_without_a_kernel(graph, tmp_path):
    from ai_edge_litert.schema_py_generated import BuiltinOperator

    rename(graph, first(graph, "LOGISTIC"), BuiltinOperator.GELU)
    path = saved(graph, tmp_path)
    (line,) = tflite_micro.violations(path, per_channel_linear=True)
    assert line.startswith("GELU -> ") and line.endswith("there is no such kernel")
    assert edge_tpu.violations(path, per_channel_linear=True) == []
    assert " 1 GELU to the CPU" in edge_tpu.remarks(path)[0]


def test_the_edge_tpu_takes_strides_over_pixels(pc_folder):
    """Option A shortcuts take every second pixel: slices, were they not said as pooling."""
    assert edge_tpu.remarks(pc_folder.path / "slim.int8.tflite") == []


def test_limits_of_the_edge_tpu(graph, tmp_path):
    first(graph, "CONV_2D").builtinOptions.dilationWFactor = 2
    first(graph, "MAX_POOL_2D").builtinOptions.fusedActivationFunction = 1
    first(graph, "FULLY_CONNECTED").builtinOptions.weightsFormat = 1
    axes = tensor(graph, first(graph, "MEAN"), 1)
    graph.model.buffers[axes.buffer].data = np.array([0, 1], np.int32).view(np.uint8)
    (remark,) = edge_tpu.remarks(saved(graph, tmp_path))
    for name in ("CONV_2D", "MAX_POOL_2D", "FULLY_CONNECTED", "MEAN"):
        assert f"1 {name}" in remark
    assert "all that follows CONV_2D -> " in remark


def test_tflite_weights_and_biases(graph, tmp_path):
    conv, linear = first(graph, "CONV_2D"), first(graph, "FULLY_CONNECTED")
    tensor(graph, conv, 1).quantization.zeroPoint = np.ones(8, np.int64)
    bias = tensor(graph, conv, 2).quantization
    bias.scale = bias.scale * 1e3
    tensor(graph, linear, 1).quantization.quantizedDimension = 1
    lines = litert_violations(saved(graph, tmp_path))
    assert [line.partition(" -> ")[0] for line in lines] == [
        "weight of CONV_2D",
        "bias of CONV_2D",
        "weight of FULLY_CONNECTED",
    ]
    assert "zero point other than 0" in lines[0]
    assert "not scaled by input scale x weight scale" in lines[1]
    assert "4 scales on axis 1, channels are axis 0" in lines[2]


def test_tflite_weights_hold_no_minus_128(graph, tmp_path):
    buffer = graph.model.buffers[tensor(graph, first(graph, "CONV_2D"), 1).buffer]
    buffer.data = np.array(buffer.data)
    buffer.data[3] = 0x80
    (line,) = litert_violations(saved(graph, tmp_path))
    assert line.endswith("holds -128")


def test_scales_that_operators_fix_or_pass_on(graph, tmp_path):
    gate, pool = first(graph, "LOGISTIC"), first(graph, "MAX_POOL_2D")
    gated, pooled = (graph.tensors[int(op.outputs[0])].quantization for op in (gate, pool))
    gated.scale = gated.scale * 2
    pooled.zeroPoint = pooled.zeroPoint + 1
    lines = litert_violations(saved(graph, tmp_path))
    assert any(line.startswith("LOGISTIC -> ") and "another scale" in line for line in lines)
    assert any(line.startswith("MAX_POOL_2D -> ") and "changes scale" in line for line in lines)
