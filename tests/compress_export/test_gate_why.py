"""Layers of shipped files: bytes, MACs and times against what is known of a made file."""

from __future__ import annotations

from math import prod
from pathlib import Path

import pytest

import runtime_bench
from boards import load_board
from compress_export.gate.layers import FileLayers, Layer, layers_of
from compress_export.gate.onnx_layers import onnx_layers, with_times
from compress_export.gate.tflite_layers import tflite_layers
from compress_export.gate.why import why_markdown, why_rows
from exporters.layer_files import LayerSpec, layer_file
from runtime_bench import Measurement, RuntimeMissingError

SPECS = {
    "conv": LayerSpec("conv", 8, 16, (3, 3), (2, 2), (1, 1), input_size=(12, 12)),
    "depthwise": LayerSpec("depthwise", 8, 8, (3, 3), (1, 1), (1, 1), input_size=(10, 10)),
    "linear": LayerSpec("linear", 24, 10),
}


def made(folder: Path, kind: str, format_: str, precision: str) -> Path:
    path = folder / f"slim.{precision}.{format_}"
    board = load_board("x86-64")
    path.write_bytes(layer_file(SPECS[kind], format=format_, precision=precision, board=board))
    return path


@pytest.mark.parametrize("precision", ["int8", "float32"])
@pytest.mark.parametrize("format_", ["onnx", "tflite"])
@pytest.mark.parametrize("kind", SPECS)
def test_bytes_and_macs(tmp_path: Path, kind: str, format_: str, precision: str) -> None:
    path, spec = made(tmp_path, kind, format_, precision), SPECS[kind]
    (layer,) = onnx_layers(path) if format_ == "onnx" else tflite_layers(path, None)
    weights = prod(spec.weight_shape)
    assert layer.macs == weights * prod(spec.output_size)
    least = weights * (1 if precision == "int8" else 4) + 4 * spec.outputs  # the bias
    scales_and_shapes = 32 * spec.outputs + 64
    assert least <= layer.size_bytes <= least + scales_and_shapes


def test_times_of_operators_go_to_the_layer_that_they_are_named_after() -> None:
    layers = [Layer(name, "Conv", 1, 1) for name in ("conv1", "conv10", "conv1_b", "head")]
    times = {"conv1": 1.0, "conv1_bias_dq": 0.5, "conv10_quant": 2.0, "conv1_b_dq": 4.0, "Add": 8.0}
    found = [layer.time_ms for layer in with_times(layers, times)]
    assert found == [1.5, 2.0, 4.0, None]


def measurement(path: Path, format_: str) -> Measurement:
    size = path.stat().st_size
    return Measurement(
        path.name, "slim", str(path.parent), path.name, format_, "int8", size, "", None, None, 1,
        "host", True,
    )  # fmt: skip


@pytest.mark.parametrize(("format_", "precision"), [("onnx", "float32"), ("tflite", "int8")])
def test_a_file_is_timed(tmp_path: Path, format_: str, precision: str) -> None:
    path = made(tmp_path, "conv", format_, precision)
    found = layers_of(tmp_path, measurement(path, format_))
    assert found.time_ms is not None
    assert 0 < sum(layer.time_ms or 0.0 for layer in found.layers) <= found.time_ms


def test_a_file_that_cannot_be_timed_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> list[float]:
        raise RuntimeMissingError("tflite: no runtime")

    monkeypatch.setattr(runtime_bench, "time_small_files", fails)
    path = made(tmp_path, "conv", "tflite", "int8")
    found = layers_of(tmp_path, measurement(path, "tflite"))
    assert found.time_ms is None
    assert found.time_note == "by layer not known: tflite: no runtime"


def test_rows_are_the_heaviest_first_and_add_up() -> None:
    layers = tuple(Layer(f"l{n}", "Conv", 100 * n, 10 * n, 0.01 * (20 - n)) for n in range(1, 16))
    file = FileLayers("slim.int8.onnx", layers, 13000, 2.0, "made up")
    by_bytes, by_time = why_rows(file, by_time=False), why_rows(file, by_time=True)
    assert [row[0] for row in by_bytes[:2]] == ["l15", "l14"]
    assert [row[0] for row in by_time[:2]] == ["l1", "l2"]
    assert [row[0] for row in by_bytes[-2:]] == ["3 smaller layers", "everything else"]
    for column in (3, 5, 7):
        shares = [float(row[column]) for row in by_bytes if row[column] != "-"]
        assert sum(shares) == pytest.approx(100, abs=0.5)
    text = why_markdown([file], by_time=False)
    assert "<details><summary>slim.int8.onnx by layer</summary>" in text
