"""Calibration methods against numpy, PyTorch, onnxruntime's calibrators and brute force."""

from __future__ import annotations

import math

import numpy as np
import onnx
import pytest
import torch
from exporting import exported
from hypothesis import example, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization.calibrate import CalibrationMethod, create_calibrator
from torch import nn

from boards import load_board
from boards.parts import CALIBRATION_METHODS as METHODS
from exporters import Calibration
from exporters.clipping import (
    BINS,
    Grid,
    Histogram,
    entropy_range,
    mse_range,
    percentile_range,
)
from exporters.layer_files import LayerSpec, layer_file
from exporters.onnx_calibration import onnx_ranges
from exporters.ranges import find_ranges
from exporters.tflite_calibration import tflite_ranges

SHAPE = (3, 8, 8)


def histogram_of(values: np.ndarray, *, symmetric: bool = False) -> Histogram:
    reach = float(np.abs(values).max())
    low, high = (-reach, reach) if symmetric else (float(values.min()), float(values.max()))
    histogram = Histogram(low, high)
    histogram.add(values)
    return histogram


def laplace(seed: int, count: int = 40_000) -> np.ndarray:
    """Long tails, not centred: what activations look like before a Relu."""
    rng = np.random.default_rng(seed)
    return rng.laplace(0.3, 1.0, count).astype(np.float32)


# --- each way of clipping --------------------------------------------------------------------


@settings(max_examples=30)
@given(
    seed=st.integers(0, 10**6),
    percentile=st.floats(60, 99.999),
    relu=st.booleans(),
)
@example(seed=37301, percentile=61.0, relu=True)  # 80.5 % of 5,000 values
def test_percentile_is_numpys_within_a_bin(seed, percentile, relu):
    values = laplace(seed, 5000)
    values = np.maximum(values, 0) if relu else values
    histogram = histogram_of(values)
    found = percentile_range(histogram, percentile)
    cut = (100 - percentile) / 2
    # Where a share of the values is a whole number of them, rounding decides which of two it is.
    least, most = (
        np.percentile(values, [cut + off, 100 - cut + off], method="inverted_cdf")
        for off in (-1e-9, 1e-9)
    )
    width = 1.01 * (histogram.high - histogram.low) / BINS
    assert (least - width <= found).all() and (found <= most + width).all()


def brute_force_divergence(counts: np.ndarray, half_width: int, levels: int) -> float:
    """KL(P || Q) bin by bin, as the talk draws it."""
    middle = len(counts) // 2
    first, last = middle - half_width, middle + half_width
    inside = counts[first:last].astype(float)
    p = inside.copy()
    p[0] += counts[:first].sum()
    p[-1] += counts[last:].sum()
    q = np.zeros_like(p)
    bounds = [index * len(p) // levels for index in range(levels + 1)]
    for start, end in zip(bounds, bounds[1:], strict=False):
        occupied = p[start:end] > 0
        if occupied.any():
            q[start:end][occupied] = inside[start:end].sum() / occupied.sum()
    total = 0.0
    for a, b in zip(p / p.sum(), q / q.sum(), strict=True):
        if a > 0:
            total += a * math.log(a / b) if b > 0 else math.inf
    return total


def test_entropy_finds_the_least_divergence_of_brute_force():
    values = np.concatenate([laplace(1), np.float32([40.0])])
    histogram = histogram_of(values, symmetric=True)
    low, high = entropy_range(histogram, Grid(8))
    width = 2 * histogram.high / BINS
    assert low == pytest.approx(-high)
    chosen = round(high / width)
    tried = [*range(128, BINS // 2 + 1, 120), chosen - 1, chosen + 1]
    best = brute_force_divergence(histogram.counts, chosen, 256)
    assert all(
        best <= brute_force_divergence(histogram.counts, other, 256) + 1e-12 for other in tried
    )
    assert high < 0.5 * histogram.high


def test_nothing_is_clipped_where_the_grid_is_as_fine_as_the_histogram():
    histogram = histogram_of(laplace(2), symmetric=True)
    assert entropy_range(histogram, Grid(16)) == (histogram.low, histogram.high)
    low, high = mse_range(histogram_of(laplace(2)), Grid(16))
    assert high > 0.95 * laplace(2).max()


def quantization_error(values: np.ndarray, low: float, high: float) -> float:
    """Mean squared error of an 8-bit asymmetric grid, on the values themselves."""
    step = (high - low) / 255
    zero_point = round(-low / step)
    integers = np.clip(np.round(values / step) + zero_point, 0, 255)
    return float((((integers - zero_point) * step - values) ** 2).mean())


@pytest.mark.parametrize("relu", [False, True])
def test_mse_beats_every_other_pair_of_limits(relu):
    values = np.concatenate([laplace(3), np.float32([25.0, -18.0])])
    values = np.maximum(values, 0) if relu else values
    low, high = mse_range(histogram_of(values), Grid(8))
    found = quantization_error(values, low, high)
    least, most = min(float(values.min()), 0), float(values.max())
    assert found < 0.98 * quantization_error(values, least, most)
    for share in np.linspace(0.1, 1, 15):
        for other in np.linspace(0.1, 1, 15) if least < 0 else (1.0,):
            assert found <= 1.03 * quantization_error(values, other * least, share * most)


def test_symmetric_mse_limits_are_mirrored():
    low, high = mse_range(histogram_of(laplace(4)), Grid(8, symmetric=True))
    assert low == -high


def test_symmetric_mse_limits_count_on_the_lowest_integer():
    """-1 is -128 steps of 1/128, as everything else is whole steps; 127 of these are the limit."""
    values = np.concatenate([np.full(1000, -1.0), np.arange(-127, 128) / 128])
    low, high = mse_range(histogram_of(values, symmetric=True), Grid(8, symmetric=True))
    assert (low, high) == (-127 / 128, 127 / 128)


# --- over a stream ---------------------------------------------------------------------------


def observed(values: np.ndarray, batch: int):
    """A stream of one tensor "t" [images, ...]."""
    return lambda: iter(
        [[("t", values[start : start + batch])] for start in range(0, len(values), batch)]
    )


def test_moving_average_is_pytorchs_fed_with_single_images():
    values = laplace(5, 32 * 50).reshape(50, 32)
    observer = torch.ao.quantization.MovingAverageMinMaxObserver(averaging_constant=0.01)
    for row in values:
        observer(torch.from_numpy(row))
    wanted = (observer.min_val.item(), observer.max_val.item())
    for batch in (1, 7, 50):
        found = find_ranges(observed(values, batch), "moving-average", Grid())
        np.testing.assert_allclose(found["t"], wanted, rtol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_ranges_lie_inside_the_extremes_and_do_not_depend_on_batches(method):
    values = laplace(6, 64 * 30).reshape(30, 64)
    values[3, 5] = -np.inf  # a border before a max pool
    ranges = [find_ranges(observed(values, batch), method, Grid())["t"] for batch in (1, 30)]
    assert ranges[0] == ranges[1]
    low, high = ranges[0]
    finite = values[np.isfinite(values)]
    assert finite.min() <= low < high <= finite.max()
    assert (method == "minmax") == ((low, high) == (finite.min(), finite.max()))


@pytest.mark.parametrize("method", METHODS)
def test_exact_tensors_and_constants_keep_their_extremes(method):
    values = laplace(7, 64 * 8).reshape(8, 64)
    extremes = (values.min(), values.max())
    exact = find_ranges(observed(values, 4), method, Grid(), exact=["t"])
    assert exact["t"] == extremes
    constant = np.full((4, 9), 0.25, np.float32)
    assert find_ranges(observed(constant, 2), method, Grid())["t"] == (0.25, 0.25)
    nearly = constant.copy()
    nearly[0, 0] = np.nextafter(np.float32(0.25), np.float32(1))
    low, high = find_ranges(observed(nearly, 2), method, Grid())["t"]
    assert 0.25 <= low <= high <= 0.2500001


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("grid", [Grid(), Grid(symmetric=True), Grid(16, True)])
def test_what_is_always_zero_has_a_scale_all_the_same(method, grid):
    for values in (np.zeros((4, 9)), np.full((4, 9), 1e-12), np.full((4, 9), -1e-12)):
        low, high = find_ranges(observed(values.astype(np.float32), 2), method, grid)["t"]
        assert low <= 0 <= high
        assert (high - low) / grid.steps == pytest.approx(1e-6)
    small = np.full((4, 9), 1e-4, np.float32)
    assert find_ranges(observed(small, 2), method, grid, exact=["t"])["t"] == (small.min(),) * 2


def test_a_network_whose_features_are_zero_becomes_files_that_run(tmp_path):
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    ).eval()
    with torch.no_grad():
        network[0].bias.fill_(-100)
        network[2].bias.zero_()
    images = np.random.default_rng(0).normal(size=(8, 3, 8, 8)).astype(np.float32)
    files = exported(network, tmp_path, images, "int8", board=load_board("rpi5"))
    assert [file.name for file in files] == ["slim.int8.onnx", "slim.int8.tflite"]


# --- in both formats -------------------------------------------------------------------------


def small_graph() -> onnx.ModelProto:
    """input -> Conv -> Relu -> Add(constant) -> GlobalAveragePool."""
    rng = np.random.default_rng(0)
    weight = rng.laplace(size=(6, 3, 3, 3)).astype(np.float32)
    shift = rng.normal(size=(1, 6, 1, 1)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["input", "weight"], ["conv"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["conv"], ["relu"]),
        helper.make_node("Add", ["relu", "shift"], ["sum"]),
        helper.make_node("GlobalAveragePool", ["sum"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", *SHAPE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 6, 1, 1])],
        [numpy_helper.from_array(weight, "weight"), numpy_helper.from_array(shift, "shift")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def batches(count: int = 6, size: int = 8) -> list[np.ndarray]:
    rng = np.random.default_rng(9)
    return [rng.laplace(size=(size, *SHAPE)).astype(np.float32) for _ in range(count)]


class Reader:
    def __init__(self, arrays: list[np.ndarray]) -> None:
        self.waiting = iter([{"input": array} for array in arrays])

    def get_next(self):
        return next(self.waiting, None)


def onnxruntimes_ranges(tmp_path, method: CalibrationMethod, **options):
    path = tmp_path / "float.onnx"
    onnx.save(small_graph(), str(path))
    calibrator = create_calibrator(
        path,
        augmented_model_path=str(tmp_path / "augmented.onnx"),
        calibrate_method=method,
        extra_options=options,
    )
    calibrator.collect_data(Reader(batches()))
    return {name: data.range_value for name, data in calibrator.compute_data().items()}


def our_onnx_ranges(method):
    calibration = Calibration(lambda: iter(batches()))
    return onnx_ranges(small_graph(), calibration, SHAPE, method, Grid())


def test_min_max_of_onnx_is_onnxruntimes_own(tmp_path):
    wanted = onnxruntimes_ranges(tmp_path, CalibrationMethod.MinMax)
    found = our_onnx_ranges("minmax")
    assert found.keys() == wanted.keys() == {"input", "conv", "relu", "sum", "logits"}
    for name, (low, high) in wanted.items():
        assert found[name] == (float(low.item()), float(high.item()))


def test_percentile_of_onnx_is_onnxruntimes_within_its_bins(tmp_path):
    wanted = onnxruntimes_ranges(
        tmp_path, CalibrationMethod.Percentile, num_bins=4096, percentile=99.99, symmetric=False
    )
    found = our_onnx_ranges("percentile")
    for name in ("input", "conv", "relu", "sum"):
        bin_width = 2 * max(abs(limit) for limit in our_onnx_ranges("minmax")[name]) / 4096
        theirs = [float(limit) for limit in wanted[name]]
        np.testing.assert_allclose(found[name], theirs, atol=2 * bin_width)


def test_entropy_of_onnx_is_near_onnxruntimes(tmp_path):
    """Theirs puts the bins left over by a division into the last level, so it prefers multiples."""
    wanted = onnxruntimes_ranges(
        tmp_path, CalibrationMethod.Entropy, num_bins=1024, num_quantized_bins=256, symmetric=False
    )
    found = our_onnx_ranges("entropy")
    for name in ("input", "conv"):
        assert found[name][1] == pytest.approx(float(wanted[name][1]), rel=0.3)


@pytest.mark.parametrize("method", METHODS)
def test_both_formats_find_the_ranges_of_the_same_layer(tmp_path, method):
    spec = LayerSpec("conv", 3, 8, (3, 3), (1, 1), (1, 1), (1, 1), SHAPE[1:])
    calibration = Calibration(lambda: iter(batches()))
    board = load_board("x86-64")
    files = {
        name: layer_file(spec, format=name, precision="float32", board=board)
        for name in ("onnx", "tflite")
    }
    path = tmp_path / "layer.tflite"
    path.write_bytes(files["tflite"])
    found = tflite_ranges(path, calibration, SHAPE, method, Grid())
    model = onnx.load_from_string(files["onnx"])
    for node in model.graph.node:  # our exporters call every input "input"
        node.input[:] = ["input" if n == model.graph.input[0].name else n for n in node.input]
    conv = next(node.output[0] for node in model.graph.node if node.op_type == "Conv")
    model.graph.input[0].name = "input"
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"
    other = onnx_ranges(model, calibration, SHAPE, method, Grid())
    np.testing.assert_allclose(found["t0"], other["input"], rtol=1e-5)
    if method == "minmax":  # the layer is the TFLite file's output: exact by every method
        np.testing.assert_allclose(list(found.values())[-1], other[conv], rtol=1e-4)
