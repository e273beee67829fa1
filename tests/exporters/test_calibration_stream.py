"""Calibration is streamed: ranges are those of the whole set, memory is that of one batch."""

from __future__ import annotations

import weakref

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from boards import load_board
from exporters import Calibration
from exporters.onnx_int8 import export_int8_onnx
from exporters.ranges import RangeTracker
from exporters.tflite import export_int8_tflite


class WatchedStream:
    """Yields random batches, the last with an outlier, and counts those still alive."""

    def __init__(self, batches: int) -> None:
        self.batches = batches
        self.alive: list[weakref.ref] = []
        self.most_alive = 0

    def __call__(self):
        rng = np.random.default_rng(5)
        for index in range(self.batches):
            batch = rng.normal(size=(4, 3, 16, 16)).astype(np.float32)
            if index == self.batches - 1:
                batch[0, 0, 0, 0] = 9.0
                batch[1, 0, 0, 0] = -6.0
            self.alive.append(weakref.ref(batch))
            self.most_alive = max(self.most_alive, sum(r() is not None for r in self.alive))
            yield batch


def test_count_runs_through_the_stream():
    assert Calibration(WatchedStream(5)).count == 20


def test_onnx_calibration_holds_a_batch_at_a_time(pc_folder, tmp_path):
    stream = WatchedStream(12)
    path = tmp_path / "q.onnx"
    export_int8_onnx(
        pc_folder.path / "slim.float32.onnx",
        path,
        calibration=Calibration(stream),
        rules=load_board("x86-64").quantization.onnx,
        input_shape=(3, 16, 16),
    )
    assert len(stream.alive) == 12
    assert stream.most_alive <= 3
    model = onnx.load(str(path))
    constants = {c.name: onnx.numpy_helper.to_array(c) for c in model.graph.initializer}
    first = next(n for n in model.graph.node if n.op_type == "QuantizeLinear")
    assert first.input[0] == "input"
    assert float(constants[first.input[1]]) == pytest.approx(15 / 255, rel=1e-4)
    assert int(constants[first.input[2]]) == round(6 / (15 / 255))


def test_tflite_calibration_holds_a_batch_at_a_time(pc_folder, tmp_path):
    stream = WatchedStream(12)
    path = tmp_path / "q.tflite"
    export_int8_tflite(
        pc_folder.path / "slim.float32.tflite",
        path,
        calibration=Calibration(stream),
        rules=load_board("x86-64").quantization.tflite,
        input_shape=(3, 16, 16),
    )
    assert stream.most_alive <= 3
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path))
    scale, zero_point = interpreter.get_input_details()[0]["quantization"]
    assert scale == pytest.approx(15 / 255, rel=1e-3)
    assert zero_point == pytest.approx(-128 + 6 / (15 / 255), abs=1)


@given(st.lists(st.tuples(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6)), min_size=1))
def test_range_tracker_is_the_hull(pairs):
    tracker = RangeTracker()
    for a, b in pairs:
        tracker.update("t", min(a, b), max(a, b))
    flat = [value for pair in pairs for value in pair]
    assert tracker.ranges["t"] == (min(flat), max(flat))
