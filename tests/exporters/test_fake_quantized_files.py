"""What fake-quantized torch answers is what the exported files answer."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from conftest import INPUT_SHAPE, Folder, stream
from torch import nn

from boards import load_board
from boards.parts import FilePrecision
from compressor.quantization.fake import FakeQuantized
from compressor.quantization.scheme import Scheme
from exporters import Calibration, export_files
from exporters.checks import onnx_runner, tflite_runner

BOARD = load_board("x86-64")
RUNNERS = {"onnx": onnx_runner, "tflite": tflite_runner}


def of_torch(
    model: nn.Module,
    precision: FilePrecision,
    format: str,
    calibration: Calibration,
    images: np.ndarray,
) -> np.ndarray:
    """Answers of the fake-quantized network, float32 [N, classes]."""

    def samples() -> Iterator[torch.Tensor]:
        return (torch.from_numpy(batch) for batch in calibration.batches())

    rules = BOARD.quantization.onnx if format == "onnx" else BOARD.quantization.tflite
    x = torch.from_numpy(images)
    scheme = Scheme.of(precision, rules)
    net = FakeQuantized(copy.deepcopy(model), scheme, samples, x[:1]).eval()
    with torch.no_grad():
        return net(x).numpy()


def assert_alike(found: np.ndarray, expected: np.ndarray, step: float) -> None:
    """At least 99.5 % of the same classes, answers within two steps of the output."""
    assert (found.argmax(axis=1) == expected.argmax(axis=1)).mean() >= 0.995
    assert np.abs(found - expected).max() <= 2 * step * 1.001


@pytest.mark.parametrize(
    ("format", "share"),
    [("onnx", 0.5), ("tflite", 0.8)],  # TFLite's outputs are rounded, so one step is a lot
)
def test_int8_files_answer_as_fake_quantized_torch(
    pc_folder: Folder,
    calibration: Calibration,
    validation_images: np.ndarray,
    format: str,
    share: float,
) -> None:
    step = pc_folder.file("slim.int8.tflite").output.scale
    assert step is not None
    file = pc_folder.file(f"slim.int8.{format}")
    (answers,) = RUNNERS[format](pc_folder.path / file.path, [file.output.name])(validation_images)
    expected = of_torch(pc_folder.model, "int8", format, calibration, validation_images)
    assert_alike(answers, expected, step)
    with torch.no_grad():
        unrounded = pc_folder.model(torch.from_numpy(validation_images)).numpy()
    rounding = np.abs(unrounded - expected).mean()
    assert np.abs(answers - expected).mean() < share * rounding  # the same rounding, not just near


@pytest.mark.parametrize(
    ("precision", "format"),
    [
        ("int8-weights", "onnx"),
        ("int4-weights", "tflite"),
        ("int2-weights", "tflite"),
        ("int8-int16", "tflite"),
    ],
)
def test_other_precisions_answer_as_fake_quantized_torch(
    tmp_path,
    small_net: nn.Module,
    calibration: Calibration,
    validation_images: np.ndarray,
    precision: FilePrecision,
    format: str,
) -> None:
    (file,) = export_files(
        small_net,
        stage="slim",
        folder=tmp_path,
        input_shape=INPUT_SHAPE,
        calibration=calibration,
        validation=lambda: stream(validation_images, 50),
        board=BOARD,
        formats=(format,),
        precisions=(precision,),
        progress=lambda line: None,
    )
    (answers,) = RUNNERS[format](tmp_path / file.path, [file.output.name])(validation_images)
    expected = of_torch(small_net, precision, format, calibration, validation_images)
    with torch.no_grad():
        unrounded = small_net(torch.from_numpy(validation_images)).numpy()
    rounding = np.abs(unrounded - expected).mean()
    assert rounding > 0
    assert np.abs(answers - expected).mean() < 0.1 * rounding + 1e-5
