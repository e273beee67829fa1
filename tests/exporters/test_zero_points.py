"""The survey's worked example, how its zero point differs, and that our files have the other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from exporters.inspect_tflite import TfliteGraph
from exporters.onnx_qdq import Graph

INT8, UINT8 = (-128, 127), (0, 255)


@dataclass(frozen=True)
class Grid:
    """q = round(x / scale) + zero point, cut to the limits; x = (q - zero point) x scale."""

    scale: float
    zero_point: int
    limits: tuple[int, int]

    def stored(self, x: float) -> int:
        return int(np.clip(round(x / self.scale) + self.zero_point, *self.limits))

    def back(self, x: float) -> float:
        return (self.stored(x) - self.zero_point) * self.scale


def of_the_survey(low: float, high: float) -> Grid:
    scale = (high - low) / 255
    return Grid(scale, round(low / scale), INT8)


def of_the_files(low: float, high: float, limits: tuple[int, int]) -> Grid:
    """ONNX QuantizeLinear and the LiteRT 8-bit specification."""
    scale = (high - low) / 255
    return Grid(scale, limits[0] - round(low / scale), limits)


# docs/quantization.md: the only range with one decimal that gives the example's figures.
LOW, HIGH = -1.2, 6.7


def test_the_worked_example():
    grid = of_the_survey(LOW, HIGH)
    assert (round(grid.scale, 5), grid.zero_point) == (0.03098, -39)
    assert grid.stored(2.3) == 35
    assert grid.back(2.3) == pytest.approx(2.2925, abs=5e-5)


def test_only_the_surveys_formula_and_range_give_its_figures():
    """Ranges with one decimal: one of the survey's formula, none of the files'."""
    tenths = [(low, high) for low in range(-100, 0) for high in range(1, 101)]
    ranges = [(low / 10, high / 10) for low, high in tenths]
    wanted = (0.03098, -39)

    def found(grid: Grid) -> tuple[float, int]:
        return round(grid.scale, 5), grid.zero_point

    assert [r for r in ranges if found(of_the_survey(*r)) == wanted] == [(LOW, HIGH)]
    assert not [r for r in ranges if found(of_the_files(*r, INT8)) == wanted]


def test_where_the_surveys_formula_clips():
    survey, ours = of_the_survey(LOW, HIGH), of_the_files(LOW, HIGH, INT8)
    assert survey.stored(LOW) == 2 * survey.zero_point == -78  # 50 integers below stay unused
    top = (127 - survey.zero_point) * survey.scale
    assert top == pytest.approx(5.143, abs=1e-3)
    assert survey.back(HIGH) == pytest.approx(top)
    assert (ours.zero_point, ours.stored(LOW), ours.stored(HIGH)) == (-89, -128, 127)
    assert abs(ours.back(HIGH) - HIGH) <= ours.scale / 2 + 1e-9
    assert ours.back(2.3) == pytest.approx(survey.back(2.3))


def test_symmetric_weights_would_lose_their_negative_half():
    survey = of_the_survey(-1.0, 1.0)
    assert all(abs(survey.back(x)) < survey.scale for x in (-1.0, -0.5, -0.1))
    assert survey.back(0.5) == pytest.approx(0.5, abs=survey.scale)


@given(
    st.floats(-1e3, 0),
    st.floats(1e-3, 1e3),
    st.floats(0, 1),
    st.sampled_from([INT8, UINT8]),
)
def test_the_files_formula_keeps_the_whole_range(low, high, share, limits):
    grid = of_the_files(low, high, limits)
    x = low + share * (high - low)
    assert abs(grid.back(x) - x) <= grid.scale * 1.001  # zero point and value are both rounded
    assert grid.back(0.0) == 0.0


# Files --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ranges(small_net, calibration) -> dict[str, tuple[float, float]]:
    """Smallest and largest value over the calibration images, by torch."""
    images = torch.from_numpy(np.concatenate(list(calibration.batches())))
    block = small_net.block1
    with torch.no_grad():
        first = F.relu(small_net.bn1(small_net.conv1(images)))
        pooled = F.max_pool2d(first, 3, 1, 1)
        second = block.bn2(block.conv2(F.relu(block.bn1(block.conv1(pooled)))))
    found = {"input": images, "conv1": first, "block1.conv2": second}
    return {name: (float(x.min()), float(x.max())) for name, x in found.items()}


def check(scale: float, zero_point: int, low: float, high: float, limits: tuple[int, int]) -> None:
    wanted = of_the_files(low, high, limits)
    assert scale == pytest.approx(wanted.scale, rel=1e-4)
    tie = abs(-low / wanted.scale % 1 - 0.5) < 1e-3  # the tools round such a half up or down
    assert abs(zero_point - wanted.zero_point) <= tie
    assert low == 0 or zero_point != of_the_survey(low, high).zero_point


def test_onnx_files_have_the_zero_point_of_onnx(pc_folder, ranges):
    graph = Graph(onnx.load(str(pc_folder.path / "slim.int8.onnx")))
    makers = {node.name: node.output[0] for node in graph.model.graph.node if node.name}
    for name, (low, high) in ranges.items():
        (quantize,) = graph.consumers[makers.get(name, name)]
        assert quantize.op_type == "QuantizeLinear"
        scale, zero_point = (graph.constants[part] for part in quantize.input[1:])
        assert zero_point.dtype == np.uint8
        check(float(scale), int(zero_point), low, high, UINT8)


def test_tflite_files_have_the_zero_point_of_tflite(pc_folder, ranges):
    graph = TfliteGraph(pc_folder.path / "slim.int8.tflite")
    convs = [op for op in graph.operators if graph.op_name(op) == "CONV_2D"]
    places = {
        "input": graph.subgraph.inputs[0],
        "conv1": convs[0].outputs[0],
        "block1.conv2": convs[2].outputs[0],
    }
    for name, (low, high) in ranges.items():
        found = graph.tensors[int(places[name])].quantization
        check(float(found.scale[0]), int(found.zeroPoint[0]), low, high, INT8)
