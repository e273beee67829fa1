"""Hard swish, hard sigmoid, lone batch norms and GELU on their way to INT8 ONNX."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from boards import load_board
from exporters import Calibration
from exporters.float_operators import float_operators
from exporters.onnx_int8 import export_int8_onnx
from exporters.onnx_integer_forms import integer_forms, whole_in_float
from exporters.onnx_qdq import Graph

SHAPE = (3, 8, 8)
CHANNELS = 4
_rng = np.random.default_rng(0)


def images(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, *SHAPE)).astype(np.float32)


def built(*nodes: onnx.NodeProto, **constants: np.ndarray) -> onnx.ModelProto:
    """conv -> nodes (from "a" to "b") -> conv, all float."""
    weights = {
        "first.weight": _rng.standard_normal((CHANNELS, 3, 3, 3)),
        "last.weight": _rng.standard_normal((CHANNELS, CHANNELS, 1, 1)),
        **constants,
    }
    convs = (
        helper.make_node("Conv", ["input", "first.weight"], ["a"], name="first"),
        helper.make_node("Conv", ["b", "last.weight"], ["logits"], name="last"),
    )
    graph = helper.make_graph(
        [convs[0], *nodes, convs[1]],
        "small",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", *SHAPE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", CHANNELS, None, None])],
        [numpy_helper.from_array(_stored(value), name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model


def _stored(value: np.ndarray) -> np.ndarray:
    array = np.asarray(value)
    return array if array.dtype == np.int64 else array.astype(np.float32)


def gelu(*order: str) -> onnx.ModelProto:
    """GELU with its factor 1/2 where `order` says."""
    inner = [
        helper.make_node("Div", ["a", "root"], ["scaled"], name="div"),
        helper.make_node("Erf", ["scaled"], ["erf"], name="erf"),
        helper.make_node("Add", ["erf", "one"], ["plus"], name="add"),
    ]
    ends = {
        "before": [("a", "half", "x2"), ("x2", "plus", "b")],
        "between": [("half", "plus", "gate"), ("a", "gate", "b")],
        "after": [("a", "plus", "twice"), ("twice", "half", "b")],
    }[order[0]]
    products = [
        helper.make_node("Mul", [one, other], [result], name=f"mul_{result}")
        for one, other, result in ends
    ]
    return built(*inner, *products, root=np.sqrt(2.0), one=1.0, half=0.5)


MODELS = {
    "hard swish": lambda: built(helper.make_node("HardSwish", ["a"], ["b"], name="swish")),
    "gate": lambda: built(
        helper.make_node("HardSigmoid", ["a"], ["g"], name="gate", alpha=1 / 6, beta=0.5),
        helper.make_node("Mul", ["a", "g"], ["b"], name="product"),
    ),
    "default gate": lambda: built(helper.make_node("HardSigmoid", ["a"], ["b"], name="gate")),
    "layer scale": lambda: built(
        helper.make_node("Unsqueeze", ["gamma", "axes"], ["scale"], name="view"),
        helper.make_node("Mul", ["a", "scale"], ["b"], name="scaled"),
        gamma=np.linspace(0.5, 1.0, CHANNELS).reshape(CHANNELS, 1),
        axes=np.array([2], np.int64),
    ),
    "batch norm": lambda: built(
        helper.make_node(
            "BatchNormalization", ["a", "bn.weight", "shift", "mean", "var"], ["b"], epsilon=1e-3
        ),
        **{"bn.weight": np.array([0.5, -1.0, 2.0, 1e-3])},
        shift=np.array([0.1, -0.2, 0.0, 1.0]),
        mean=np.array([0.3, 0.0, -1.0, 0.2]),
        var=np.array([1.0, 0.5, 4.0, 1e-4]),
    ),
}


def answers(model: onnx.ModelProto | Path, x: np.ndarray) -> np.ndarray:
    source = str(model) if isinstance(model, Path) else model.SerializeToString()
    session = onnxruntime.InferenceSession(source, providers=["CPUExecutionProvider"])
    return session.run(None, {"input": x})[0]


@pytest.mark.parametrize("kind", MODELS)
def test_rewritten_graphs_compute_the_same(kind):
    model, x = MODELS[kind](), images(3, 1)
    wanted = answers(model, x)
    integer_forms(model)
    onnx.checker.check_model(model, full_check=True)
    assert not {node.op_type for node in model.graph.node} & {
        "HardSwish",
        "HardSigmoid",
        "BatchNormalization",
    }
    np.testing.assert_allclose(answers(model, x), wanted, atol=1e-4 * np.abs(wanted).max())


@pytest.mark.parametrize("kind", MODELS)
def test_int8_files_compute_on_integers_alone(kind, tmp_path):
    model, x = MODELS[kind](), images(8, 1)
    source, path = tmp_path / "float.onnx", tmp_path / "int8.onnx"
    onnx.save(model, str(source))
    export_int8_onnx(
        source,
        path,
        calibration=Calibration(lambda: iter([images(16, 0), x])),
        rules=load_board("x86-64").quantization.onnx,
        input_shape=SHAPE,
    )
    assert float_operators(path) == {}
    wanted, found = answers(source, x), answers(path, x)
    assert np.abs(found - wanted).max() <= 0.03 * np.abs(wanted).max()


def test_two_norms_with_one_weight_get_names_of_their_own():
    parts = ["bn.weight", *["ones"] * 3]
    model = built(
        helper.make_node("BatchNormalization", ["a", *parts], ["m"], name="n1"),
        helper.make_node("BatchNormalization", ["m", *parts], ["b"], name="n2"),
        **{"bn.weight": np.full(CHANNELS, 2.0)},
        ones=np.ones(CHANNELS),
    )
    integer_forms(model)
    assert [node.name for node in model.graph.node] == ["first", "bn", "bn_2", "last"]


def test_norms_of_vectors_stay():
    parts = ["bn.weight", *["ones"] * 3]
    model = built(
        helper.make_node("ReduceMean", ["a", "axes"], ["m"], keepdims=0),
        helper.make_node("BatchNormalization", ["m", *parts], ["n"], name="norm"),
        helper.make_node("Reshape", ["n", "shape"], ["b"]),
        **{"bn.weight": np.full(CHANNELS, 2.0)},
        ones=np.ones(CHANNELS),
        axes=np.array([2, 3], np.int64),
        shape=np.array([0, CHANNELS, 1, 1], np.int64),
    )
    integer_forms(model)
    assert "BatchNormalization" in {node.op_type for node in model.graph.node}


def test_a_factor_leaves_no_operator_behind(tmp_path):
    source, path = tmp_path / "float.onnx", tmp_path / "int8.onnx"
    onnx.save(MODELS["hard swish"](), str(source))
    export_int8_onnx(
        source,
        path,
        calibration=Calibration(lambda: iter([images(16, 0)])),
        rules=load_board("x86-64").quantization.onnx,
        input_shape=SHAPE,
    )
    graph = Graph(onnx.load(str(path)))
    (product,) = [node for node in graph.model.graph.node if node.op_type == "Mul"]
    (addition,) = [node for node in graph.model.graph.node if node.op_type == "Add"]
    # Both read the same integers, one of them at a sixth of the scale.
    readers = [graph.producer[node.input[0]] for node in (product, addition)]
    assert readers[0].input[0] == readers[1].input[0]
    scales = [graph.constants[reader.input[1]] for reader in readers]
    assert scales[1] == pytest.approx(scales[0] / 6)


@pytest.mark.parametrize("order", ["before", "between", "after"])
def test_a_gelu_is_kept_whole(order):
    model = gelu(order)
    inside = set(whole_in_float(model))
    assert inside == {node.name for node in model.graph.node} - {"first", "last"}


def test_an_error_function_elsewhere_is_no_gelu():
    model = built(
        helper.make_node("Div", ["a", "root"], ["scaled"], name="div"),
        helper.make_node("Erf", ["scaled"], ["b"], name="erf"),
        root=np.float32(2),
    )
    assert whole_in_float(model) == []


def test_float_operators_see_what_stays_float(tmp_path):
    path = tmp_path / "float.onnx"
    onnx.save(built(helper.make_node("Erf", ["a"], ["b"], name="e")), str(path))
    found = float_operators(path)
    assert found["Erf"] == 1
    assert sum(found.values()) >= 3  # both convolutions, in whatever layout
