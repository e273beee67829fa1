"""Biases that several layers share: each gets a copy, whatever other tensors are called."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from boards import load_board
from exporters import Calibration
from exporters.onnx_int8 import export_int8_onnx
from exporters.onnx_tidy import rename_ambiguous_constants

LAYERS = 12
names = st.lists(
    st.from_regex(r"v(al)?_?[0-9]{0,3}", fullmatch=True), min_size=3, max_size=6, unique=True
)


def chain() -> onnx.ModelProto:
    """Convolutions that share a weight and a bias; outputs are numbered as copies would be."""
    generator = np.random.default_rng(0)
    weight = generator.standard_normal((3, 3, 1, 1)).astype(np.float32) / 2
    bias = generator.standard_normal(3).astype(np.float32)
    nodes = []
    for number in range(LAYERS):
        x, y = ("input" if number == 0 else f"val_{number}", f"val_{number + 1}")
        if number == LAYERS - 1:
            y = "logits"
        nodes.append(helper.make_node("Conv", [x, "weight", "val_"], [y], name=f"conv{number}"))
    shape = ["N", 3, 4, 4]
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(weight, "weight"), numpy_helper.from_array(bias, "val_")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def test_layers_with_one_bias_can_be_quantized(tmp_path: Path) -> None:
    float_path, path = tmp_path / "float.onnx", tmp_path / "int8.onnx"
    onnx.save(chain(), str(float_path))
    images = np.random.default_rng(1).standard_normal((16, 3, 4, 4)).astype(np.float32)
    rules = load_board("x86-64").quantization.onnx
    assert rules is not None
    export_int8_onnx(
        float_path,
        path,
        calibration=Calibration(lambda: [images]),
        rules=rules,
        input_shape=(3, 4, 4),
    )
    expected, found = (
        onnxruntime.InferenceSession(str(file)).run(None, {"input": images})[0]
        for file in (float_path, path)
    )
    assert np.abs(found - expected).max() < 0.05 * np.ptp(expected)


@given(names)
def test_no_constant_is_the_beginning_of_a_numbered_name(found: list[str]) -> None:
    constant, *others = found
    nodes = [helper.make_node("Add", [constant, other], [f"{other}x"]) for other in others]
    model = helper.make_model(
        helper.make_graph(
            nodes, "made", [], [], [numpy_helper.from_array(np.zeros(1, np.float32), constant)]
        )
    )
    rename_ambiguous_constants(model)
    name = model.graph.initializer[0].name
    tensors = {n for node in model.graph.node for n in (*node.input, *node.output)} - {name}
    assert all(node.input[0] == name for node in model.graph.node)
    assert not any(other.startswith(name) and other[len(name) :].isdigit() for other in tensors)
    taken = any(other.startswith(constant) and other[len(constant) :].isdigit() for other in others)
    assert (name != constant) == taken
