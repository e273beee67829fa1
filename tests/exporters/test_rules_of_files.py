"""What the board's rules, or a user's in their place, make of INT8 files."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from boards import load_board
from boards.parts import CALIBRATION_METHODS, Quantization
from exporters import Calibration
from exporters.inspect_tflite import TfliteGraph
from exporters.layer_files import LayerSpec, layer_file
from exporters.onnx_int8 import export_int8_onnx
from exporters.tflite import export_int8_tflite

SHAPE = (3, 8, 8)
CONV = LayerSpec("conv", 3, 8, (3, 3), (1, 1), (1, 1), (1, 1), SHAPE[1:])


def calibration() -> Calibration:
    rng = np.random.default_rng(1)
    batches = [rng.laplace(0.5, 1.0, (8, *SHAPE)).astype(np.float32) for _ in range(4)]
    return Calibration(lambda: iter(batches))


def changed(board: str = "x86-64", **changes) -> Quantization:
    return load_board(board).quantization.changed(**changes)


def onnx_pairs(tmp_path, rules: Quantization):
    """Scale and zero point of the image, and of the convolution's weight, in the INT8 file."""
    rng = np.random.default_rng(0)
    weights = {
        "conv.weight": rng.normal(size=(8, 3, 3, 3)).astype(np.float32),
        "linear.weight": rng.normal(size=(4, 8)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["input", "conv.weight"], ["a"], "conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("GlobalAveragePool", ["b"], ["c"]),
        helper.make_node("Flatten", ["c"], ["d"]),
        helper.make_node("Gemm", ["d", "linear.weight"], ["logits"], "linear", transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", *SHAPE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 4])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    source, path = tmp_path / "float.onnx", tmp_path / "int8.onnx"
    onnx.save(model, str(source))
    export_int8_onnx(
        source,
        path,
        calibration=calibration(),
        rules=rules.onnx,
        input_shape=SHAPE,
        method=rules.calibration,
    )
    graph = onnx.load(str(path)).graph
    constants = {c.name: numpy_helper.to_array(c) for c in graph.initializer}
    producers = {name: node for node in graph.node for name in node.output}
    image = next(n for n in graph.node if n.op_type == "QuantizeLinear" and n.input[0] == "input")
    found = [image]
    for kind in ("Conv", "Gemm"):
        layer = next(n for n in graph.node if n.op_type == kind)
        found.append(producers[layer.input[1]])
    return [(constants[n.input[1]], constants[n.input[2]]) for n in found]


def tflite_pairs(tmp_path, spec: LayerSpec, rules: Quantization):
    """(scales, zero points) of input and weight of a layer's INT8 file."""
    board = load_board("x86-64")
    source, path = tmp_path / "float.tflite", tmp_path / "int8.tflite"
    source.write_bytes(layer_file(spec, format="tflite", precision="float32", board=board))
    export_int8_tflite(
        source,
        path,
        calibration=calibration(),
        rules=rules.tflite,
        input_shape=SHAPE,
        method=rules.calibration,
    )
    graph = TfliteGraph(path)
    operator = next(op for op in graph.operators if graph.op_name(op) == "CONV_2D")
    tensors = [graph.tensors[int(index)].quantization for index in operator.inputs[:2]]
    return [(np.array(t.scale), np.array(t.zeroPoint)) for t in tensors]


def test_without_changes_the_rules_are_the_boards():
    for board in ("x86-64", "jetson", "coral", "jetson-nano"):
        assert changed(board) == load_board(board).quantization


def test_scales_of_weights(tmp_path):
    (_, conv, linear) = onnx_pairs(tmp_path, changed())
    assert conv[0].shape == (8,) and linear[0].shape == (4,)
    (_, conv, linear) = onnx_pairs(tmp_path, changed(per_channel=False))
    assert conv[0].shape == linear[0].shape == ()
    assert tflite_pairs(tmp_path, CONV, changed())[1][0].shape == (8,)
    assert tflite_pairs(tmp_path, CONV, changed(per_channel=False))[1][0].shape == (1,)


def test_symmetric_activations_have_zero_point_0(tmp_path):
    limit = np.abs(np.concatenate(list(calibration().batches()))).max()
    for symmetric in (False, True):
        rules = changed(symmetric=symmetric)
        (scale, zero_point), *_ = onnx_pairs(tmp_path, rules)
        middle = 127 if zero_point.dtype == np.uint8 else 0
        assert (abs(int(zero_point) - middle) <= 1) == symmetric
        if symmetric:
            assert float(scale) == pytest.approx(limit / 127.5, rel=0.01)
        (scale, zero_point), *_ = tflite_pairs(tmp_path, CONV, rules)
        assert (zero_point[0] == 0) == symmetric


def test_every_method_reaches_both_files(tmp_path):
    scales = {}
    for method in CALIBRATION_METHODS:
        rules = changed(calibration=method)
        scales[method] = float(onnx_pairs(tmp_path, rules)[0][0])
        other = float(tflite_pairs(tmp_path, CONV, rules)[0][0][0])
        assert scales[method] == pytest.approx(other, rel=1e-3)
    assert max(scales.values()) == scales["minmax"]
    assert len({round(scale, 6) for scale in scales.values()}) >= 4


def test_a_linear_layer_stays_per_tensor_where_the_runtime_is_old():
    rules = changed("coral", per_channel=True).tflite
    assert rules.per_channel_conv and not rules.per_channel_linear


def test_tensorrt_refuses_asymmetric_activations():
    with pytest.raises(ValueError, match="wants activation_symmetric true"):
        changed("jetson", symmetric=False)
