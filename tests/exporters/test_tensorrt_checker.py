"""The TensorRT checker passes our file and finds each broken rule in a mutated one."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from boards import load_board
from exporters import CheckError
from exporters.checks import check_dtypes
from exporters.inspect_onnx import inspect_onnx
from exporters.inspect_tflite import inspect_tflite
from exporters.onnx_int8 import export_int8_onnx
from exporters.profiles import tensorrt
from exporters.profiles.select import check_profile


@pytest.fixture
def model(jetson_folder) -> onnx.ModelProto:
    return onnx.load(str(jetson_folder.path / "slim.int8.onnx"))


def array(model: onnx.ModelProto, name: str) -> np.ndarray:
    return numpy_helper.to_array(next(c for c in model.graph.initializer if c.name == name))


def add(model: onnx.ModelProto, name: str, values: np.ndarray) -> str:
    model.graph.initializer.append(numpy_helper.from_array(values, name))
    return name


def first(model: onnx.ModelProto, op_type: str) -> onnx.NodeProto:
    return next(node for node in model.graph.node if node.op_type == op_type)


def weight_reader(model: onnx.ModelProto) -> onnx.NodeProto:
    name = first(model, "Conv").input[1]
    return next(node for node in model.graph.node if name in node.output)


def rejected(model: onnx.ModelProto, tmp_path, message: str) -> None:
    path = tmp_path / "mutated.onnx"
    onnx.save(model, str(path))
    with pytest.raises(CheckError, match=message):
        check_profile(path, load_board("jetson"), "onnx")


def test_our_file_passes_and_others_do_not(jetson_folder, pc_folder):
    jetson = load_board("jetson")
    found = check_profile(jetson_folder.path / "slim.int8.onnx", jetson, "onnx")
    assert (found.name, found.status) == ("tensorrt", "checked by rule, not measured")
    assert jetson_folder.file("slim.int8.onnx").profile == found
    with pytest.raises(CheckError, match="uint8, not int8.*int32 input"):
        check_profile(pc_folder.path / "slim.int8.onnx", jetson, "onnx")
    with pytest.raises(CheckError, match="weight of conv1 is not stored as int8"):
        check_profile(pc_folder.path / "slim.float32.onnx", jetson, "onnx")


def test_float_weights_behind_pairs(
    jetson_folder, pc_folder, calibration, validation_images, tmp_path
):
    """The other form: the same integers, kept as floats; each form is refused as the other."""
    rules = load_board("jetson").quantization.onnx
    path = tmp_path / "float_weights.onnx"
    export_int8_onnx(
        pc_folder.path / "slim.float32.onnx",
        path,
        calibration=calibration,
        rules=rules.model_copy(update={"weight_form": "float"}),
        input_shape=(3, 16, 16),
    )
    integers = jetson_folder.path / "slim.int8.onnx"
    assert tensorrt.violations(path, "float") == []
    assert "weight of conv1 is not stored as int8" in tensorrt.violations(path)
    assert any("not a float constant" in line for line in tensorrt.violations(integers, "float"))
    logits = [
        onnxruntime.InferenceSession(str(p)).run(None, {"input": validation_images})[0]
        for p in (path, integers)
    ]
    np.testing.assert_allclose(*logits, atol=1e-4 * np.abs(logits[0]).max())
    found = inspect_onnx(path, count_fused=False)
    assert found.float_layers == ()
    check_dtypes("a.onnx", found, format="onnx", precision="int8")


def test_activation_with_several_scales(model, tmp_path):
    node = first(model, "QuantizeLinear")
    node.input[1] = add(model, "scales", np.full(3, 0.1, np.float32))
    node.input[2] = add(model, "zeros", np.zeros(3, np.int8))
    rejected(model, tmp_path, "is an activation with more than one scale")


def test_weight_of_minus_128(model, tmp_path):
    reader = weight_reader(model)
    values = array(model, reader.input[0]).copy()
    values.flat[0] = -128
    reader.input[0] = add(model, "extreme", values)
    rejected(model, tmp_path, "weight of conv1 holds -128")


def test_zero_point_other_than_zero(model, tmp_path):
    first(model, "QuantizeLinear").input[2] = add(model, "three", np.array(3, np.int8))
    rejected(model, tmp_path, "zero point other than 0")


def test_zero_point_left_out(model, tmp_path):
    del first(model, "QuantizeLinear").input[2:]
    rejected(model, tmp_path, "no constant zero point")


def test_foreign_domain(model, tmp_path):
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    rejected(model, tmp_path, "operator domain com.microsoft")


def test_float_weights(model, tmp_path):
    values = array(model, weight_reader(model).input[0]).astype(np.float32)
    first(model, "Conv").input[1] = add(model, "float_weight", values)
    rejected(model, tmp_path, "weight of conv1 is not stored as int8")


def test_weights_per_tensor(model, tmp_path):
    reader = weight_reader(model)
    reader.input[1] = add(model, "one_scale", np.array(0.1, np.float32))
    reader.input[2] = add(model, "one_zero", np.array(0, np.int8))
    rejected(model, tmp_path, "weight of conv1 is not per-channel on axis 0")


def test_weights_per_channel_on_another_axis(model, tmp_path):
    reader = weight_reader(model)
    next(a for a in reader.attribute if a.name == "axis").i = 1
    rejected(model, tmp_path, "weight of conv1 is not per-channel on axis 0")


def test_quantized_bias(model, tmp_path):
    conv = first(model, "Conv")
    channels = len(array(model, conv.input[2]))
    bias = add(model, "bias_int32", np.zeros(channels, np.int32))
    zero = add(model, "bias_zero", np.zeros(channels, np.int32))
    scale = add(model, "bias_scale", np.ones(channels, np.float32))
    node = helper.make_node("DequantizeLinear", [bias, scale, zero], ["bias"], axis=0)
    model.graph.node.insert(0, node)
    conv.input[2] = "bias"
    rejected(model, tmp_path, "int32 input")


def test_quantized_softmax(model, tmp_path):
    output = model.graph.output[0].name
    scale = add(model, "scale", np.array(0.1, np.float32))
    zero = add(model, "zero", np.array(0, np.int8))
    model.graph.node.extend(
        [
            helper.make_node("Softmax", [output], ["odds"]),
            helper.make_node("QuantizeLinear", ["odds", scale, zero], ["q"]),
            helper.make_node("DequantizeLinear", ["q", scale, zero], ["dq"]),
        ]
    )
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("dq", TensorProto.FLOAT, None))
    rejected(model, tmp_path, "Softmax odds is quantized")


def test_residual_additions_are_half_quantized(model):
    """Conv + Add + Relu can fuse: one branch straight from the convolution, one through Q/DQ."""
    producers = {name: node.op_type for node in model.graph.node for name in node.output}
    additions = [node for node in model.graph.node if node.op_type == "Add"]
    residual = [a for a in additions if all(name in producers for name in a.input)]
    sources = [sorted(producers[name] for name in node.input) for node in residual]
    assert sources.count(["Conv", "DequantizeLinear"]) == 3
    for relu in [node for node in model.graph.node if node.op_type == "Relu"]:
        assert producers[relu.input[0]] in ("Conv", "Add")


def test_dtype_check_sees_a_float_file_in_an_int8_name(pc_folder):
    found = inspect_onnx(pc_folder.path / "slim.float32.onnx")
    with pytest.raises(CheckError, match="no int8 weights"):
        check_dtypes("slim.int8.onnx", found, format="onnx", precision="int8")
    found = inspect_tflite(pc_folder.path / "slim.float32.tflite")
    with pytest.raises(CheckError, match="input is float32, expected int8"):
        check_dtypes("slim.int8.tflite", found, format="tflite", precision="int8")
    found = inspect_tflite(pc_folder.path / "slim.int8.tflite")
    with pytest.raises(CheckError, match="expected float32"):
        check_dtypes("slim.float32.tflite", found, format="tflite", precision="float32")
