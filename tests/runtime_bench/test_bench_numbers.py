"""Metrics, quantization and preprocessing against scikit-learn, the spec and plain arithmetic."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from runtime_bench.manifest import Preprocessing, TensorSpec
from runtime_bench.measure import ROUND_RUNS, round_sizes
from runtime_bench.metrics import agreement, latency_percentiles, macro_precision_recall, top1
from runtime_bench.preprocess import normalise
from runtime_bench.quantize import dequantize, from_native, quantize, to_native

label_pairs = st.integers(1, 40).flatmap(
    lambda n: st.tuples(
        hnp.arrays(np.int64, n, elements=st.integers(0, 6)),
        hnp.arrays(np.int64, n, elements=st.integers(0, 6)),
    )
)


@given(label_pairs)
def test_metrics_equal_scikit_learn(pair: tuple[np.ndarray, np.ndarray]) -> None:
    from sklearn.metrics import accuracy_score, precision_score, recall_score

    labels, predictions = pair
    precision, recall = macro_precision_recall(labels, predictions)
    options = {"average": "macro", "zero_division": 0}
    assert top1(labels, predictions) == pytest.approx(accuracy_score(labels, predictions))
    assert precision == pytest.approx(precision_score(labels, predictions, **options))
    assert recall == pytest.approx(recall_score(labels, predictions, **options))


@given(label_pairs)
def test_agreement_is_symmetric_and_reflexive(pair: tuple[np.ndarray, np.ndarray]) -> None:
    first, second = pair
    assert agreement(first, second) == agreement(second, first)
    assert agreement(first, first) == 1.0


def test_metrics_refuse_unequal_or_empty() -> None:
    with pytest.raises(ValueError, match="2 and 3 values"):
        top1(np.zeros(2, int), np.zeros(3, int))
    with pytest.raises(ValueError, match="at least 1"):
        macro_precision_recall(np.zeros(0, int), np.zeros(0, int))


def test_percentiles_interpolate_linearly() -> None:
    result = latency_percentiles([float(value) for value in range(101)])
    assert result == {"p50": 50.0, "p90": 90.0, "p99": 99.0}


@pytest.mark.parametrize("runs", [1, 19, 20, 21, 100, 137])
def test_rounds_add_up_and_are_even(runs: int) -> None:
    sizes = round_sizes(runs)
    assert sum(sizes) == runs
    assert max(sizes) <= ROUND_RUNS
    assert max(sizes) - min(sizes) <= 1


scales = st.floats(2**-13, 2.0, width=32)
zeros = st.integers(-128, 127)


@given(hnp.arrays(np.int8, st.integers(1, 64)), scales, zeros)
def test_stored_values_survive_the_round_trip(
    stored: np.ndarray, scale: float, zero_point: int
) -> None:
    values = dequantize(stored, scale, zero_point)
    assert values.dtype == np.float32
    assert np.array_equal(quantize(values, scale, zero_point, "int8"), stored)


@given(
    hnp.arrays(np.float32, st.integers(1, 64), elements=st.floats(-500, 500, width=32)),
    scales,
    zeros,
)
def test_quantization_error_is_half_a_step_inside_the_range(
    values: np.ndarray, scale: float, zero_point: int
) -> None:
    low, high = (-128 - zero_point) * scale, (127 - zero_point) * scale
    back = dequantize(quantize(values, scale, zero_point, "int8"), scale, zero_point)
    error = np.abs(back.astype(np.float64) - np.clip(values.astype(np.float64), low, high))
    assert np.all(error <= scale * 0.5 + 1e-4 * scale)


def test_halves_round_to_even_and_ends_are_clipped() -> None:
    values = np.array([0.5, 1.5, 2.5, -0.5, -1.5, 1000, -1000], dtype=np.float32)
    assert quantize(values, 1.0, 0, "int8").tolist() == [0, 2, 2, 0, -2, 127, -128]
    assert quantize(values, 1.0, 128, "uint8").tolist() == [128, 130, 130, 128, 126, 255, 0]


def test_quantize_equals_onnx_quantize_linear() -> None:
    from onnx import TensorProto, helper
    from onnx.reference import ReferenceEvaluator

    values = np.random.default_rng(0).normal(0, 3, 500).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("QuantizeLinear", ["x", "s", "z"], ["y"])],
        "q",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [500]),
            helper.make_tensor_value_info("s", TensorProto.FLOAT, []),
            helper.make_tensor_value_info("z", TensorProto.INT8, []),
        ],
        [helper.make_tensor_value_info("y", TensorProto.INT8, [500])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    feed = {"x": values, "s": np.float32(0.02), "z": np.int8(-7)}
    (expected,) = ReferenceEvaluator(model).run(None, feed)
    assert np.array_equal(quantize(values, 0.02, -7, "int8"), expected)


def test_native_input_is_transposed_and_quantized() -> None:
    batch = np.arange(24, dtype=np.float32).reshape(1, 2, 3, 4)
    spec = TensorSpec("x", (1, 3, 4, 2), "NHWC", "int8", 0.5, -10)
    native = to_native(batch, spec)
    assert native.shape == (1, 3, 4, 2)
    assert native.flags["C_CONTIGUOUS"]
    assert native[0, 1, 2, 1] == batch[0, 1, 1, 2] / 0.5 - 10


def test_native_output_becomes_float_logits() -> None:
    spec = TensorSpec("y", (1, 3), "", "int8", 0.25, 4)
    logits = from_native(np.array([[4, 8, -4]], dtype=np.int8), spec)
    assert logits.dtype == np.float32
    assert logits.tolist() == [[0.0, 1.0, -2.0]]


@pytest.mark.parametrize("order", ["RGB", "BGR"])
def test_normalise_follows_the_formula(order: str) -> None:
    images = np.random.default_rng(1).integers(0, 256, (2, 4, 5, 3), dtype=np.uint8)
    preprocessing = Preprocessing((0.1, 0.2, 0.3), (0.5, 0.6, 0.7), 1 / 255, order)
    batch = normalise(images, preprocessing)
    assert batch.shape == (2, 3, 4, 5)
    assert batch.dtype == np.float32
    source = 2 if order == "RGB" else 0  # the network's channel 2 comes from here
    expected = (float(images[1, 3, 4, source]) / 255 - 0.3) / 0.7
    assert batch[1, 2, 3, 4] == pytest.approx(expected, rel=1e-5)
