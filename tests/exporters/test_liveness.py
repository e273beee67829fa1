"""Activation memory against examples counted by hand."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from exporters.inspect_onnx import inspect_onnx, onnx_schedule
from exporters.inspect_tflite import layer_name, tflite_schedule
from exporters.liveness import Step, live_bytes


def test_a_residual_keeps_its_input_alive():
    # x(10) -> a(100) -> b(20); c(30) = b + a: at the last step a + b + c live.
    steps = [Step(("x",), ("a",)), Step(("a",), ("b",)), Step(("a", "b"), ("c",))]
    sizes = {"x": 10, "a": 100, "b": 20, "c": 30}
    assert live_bytes(steps, sizes, ["x"], ["c"]) == [110, 120, 150]


def test_a_chain_needs_two_neighbours():
    steps = [Step(("x",), ("a",)), Step(("a",), ("b",)), Step(("b",), ("c",))]
    sizes = {"x": 5, "a": 7, "b": 11, "c": 2}
    assert live_bytes(steps, sizes, ["x"], ["c"]) == [12, 18, 13]


def test_no_operators_need_the_input():
    assert live_bytes([], {"x": 5}, ["x"], ["x"]) == [5]


def saved(tmp_path, nodes, constants):
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", 3, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 4, 8, 8])],
        [numpy_helper.from_array(values, name) for name, values in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    path = tmp_path / "model.onnx"
    onnx.save(model, str(path))
    return path


def test_float_onnx_counted_by_hand(tmp_path):
    nodes = [
        helper.make_node("Conv", ["input", "w1"], ["a"], name="one"),  # [n, 5, 8, 8]
        helper.make_node("Relu", ["a"], ["r"]),  # in place
        helper.make_node("Conv", ["r", "w2"], ["logits"], name="two"),  # [n, 4, 8, 8]
    ]
    constants = {"w1": np.ones((5, 3, 1, 1), np.float32), "w2": np.ones((4, 5, 1, 1), np.float32)}
    path = saved(tmp_path, nodes, constants)
    found, schedule = inspect_onnx(path), onnx_schedule(path)
    assert found.activation_bytes == 64 * 4 * (5 + 4)
    assert [step.name for step in schedule.steps] == ["Conv", "Relu", "Conv"]
    assert schedule.live_bytes() == [64 * 4 * (3 + 5), 64 * 4 * 5, 64 * 4 * (5 + 4)]
    assert found.weight_bytes == {"float32": 4 * (15 + 20)}
    assert found.float_layers == ("one", "two")
    assert (found.convs, found.fused_integer_convs) == (2, 0)


def test_quantized_onnx_counts_bytes_of_integers(tmp_path):
    scales = {"s": np.array(0.1, np.float32), "z": np.array(0, np.uint8)}
    weight = {"w": np.ones((4, 3, 1, 1), np.int8), "ws": np.array(0.1, np.float32)}
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "ws"], ["wf"]),
        helper.make_node("QuantizeLinear", ["input", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        helper.make_node("Conv", ["d", "wf"], ["a"], name="one"),
        helper.make_node("Relu", ["a"], ["r"]),
        helper.make_node("QuantizeLinear", ["r", "s", "z"], ["rq"]),
        helper.make_node("DequantizeLinear", ["rq", "s", "z"], ["logits"]),
    ]
    found = inspect_onnx(saved(tmp_path, nodes, scales | weight))
    # input float [3] beside its int8 copy: 5 bytes a pixel and channel; at the convolution
    # 3 + 4 bytes a pixel; at the end 4 int8 beside 4 float: 20 bytes a pixel.
    assert found.activation_bytes == 64 * max(3 * 4 + 3, 3 + 4, 4 + 4 * 4)
    assert found.float_layers == ()
    assert found.weight_bytes == {"float32": 8, "uint8": 1, "int8": 12}


def test_tflite_and_onnx_tell_the_same_memory(pc_folder):
    sizes = {file.name: file.activation_bytes for file in pc_folder.files}
    # Widest point: block1 holds three maps of 8 channels, 16 x 16.
    plane = 16 * 16
    assert sizes["slim.float32.tflite"] == 3 * 8 * plane * 4
    assert sizes["slim.int8.tflite"] == 3 * 8 * plane
    curve = tflite_schedule(pc_folder.path / "slim.int8.tflite").live_bytes()
    assert max(curve) == sizes["slim.int8.tflite"]
    assert sizes["slim.int8.onnx"] <= sizes["slim.float32.onnx"] / 2


def test_layer_names_from_litert_torch():
    name = (
        "litert_torch._convert.ChannelLastIOWrapper/nets.Net_wrapped/"
        "torch.nn.modules.container.Sequential_layer3/nets.Block_2/"
        "torch.nn.modules.conv.Conv2d_conv_2;1"
    )
    assert layer_name(name) == "layer3.2.conv_2"
    assert layer_name("StatefulPartitionedCall") == "StatefulPartitionedCall"
