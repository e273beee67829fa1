"""Layers left in float in files of integers, by name, in both formats."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import pytest
import torch
from exporting import exported
from torch import nn

from boards import load_board
from compressor.quantization.fake import FakeQuantized
from compressor.quantization.scheme import Scheme
from exporters import UnsupportedExportError
from exporters.checks import onnx_runner, tflite_runner
from exporters.support import why_not_float_layers

LEFT = ("conv1", "block1.conv1", "linear")
PRECISIONS = ("int8", "int8-dynamic", "int8-weights")


def written(folder, model, calibration, images, *precisions, **options):
    wanted = precisions or PRECISIONS
    return exported(model, folder, images, *wanted, calibration=calibration, **options)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, small_net, calibration, validation_images):
    path = tmp_path_factory.mktemp("mixed")
    files = written(path, small_net, calibration, validation_images, float_layers=LEFT)
    return path, {file.name: file for file in files}


def test_these_layers_alone_stay_float(folder):
    _, files = folder
    assert len(files) == 6
    for name, file in files.items():
        assert file.float_layers == LEFT, name
        assert file.agreement_validation >= 0.95


def test_input_and_output_keep_their_integers(folder):
    _, files = folder
    file = files["slim.int8.tflite"]
    assert (file.input.dtype, file.output.dtype) == ("int8", "int8")


@pytest.mark.parametrize("format", ["onnx", "tflite"])
def test_files_answer_as_torch_does_with_these_layers_in_float(
    folder, small_net, calibration, validation_images, format
):
    import copy

    path, _ = folder
    rules = load_board("x86-64").quantization
    scheme = Scheme.of("int8", rules.onnx if format == "onnx" else rules.tflite)
    x = torch.from_numpy(validation_images)
    fake = FakeQuantized(
        copy.deepcopy(small_net),
        scheme,
        lambda: (torch.from_numpy(batch) for batch in calibration.batches()),
        x[:1],
    )
    fake.eval().float_layers = frozenset(LEFT)
    with torch.no_grad():
        wanted = fake(x).numpy()
    runner = onnx_runner if format == "onnx" else tflite_runner
    found = runner(path / f"slim.int8.{format}", ["logits"])(validation_images)[0]
    assert np.abs(found - wanted).max() <= 0.05 * np.abs(wanted).max()
    assert (found.argmax(1) == wanted.argmax(1)).mean() >= 0.97


def test_names_and_boards_that_cant_are_refused(tmp_path, calibration, validation_images):
    network = nn.Sequential(OrderedDict(conv1=nn.Conv2d(3, 4, 3), flat=nn.Flatten()))
    some = (tmp_path, network.eval(), calibration, validation_images)
    for format in ("onnx", "tflite"):
        with pytest.raises(UnsupportedExportError, match="no layer 'conv9'.* conv1"):
            written(*some, "int8", formats=(format,), float_layers=("conv9",))
    with pytest.raises(UnsupportedExportError, match="stm32h747.*not layers left in float"):
        board = load_board("stm32h747")
        written(*some, "int8", board=board, formats=("tflite",), float_layers=("conv1",))


class _Mixer(nn.Module):
    """Linear layers on tokens [N, H W, C] and on images that have channels last."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 4, 4)
        self.wide = nn.Linear(8, 8)
        self.narrow = nn.Linear(8, 8, bias=False)
        self.norm = nn.LayerNorm(8)
        self.last = nn.Linear(8, 8)
        self.head = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = self.wide(x.permute(0, 2, 3, 1)).relu().flatten(1, 2)
        x = self.last(self.norm(self.narrow(x)) * 2.0)
        return self.head(x.mean(1))


@pytest.mark.parametrize("format", ["onnx", "tflite"])
def test_linear_layers_on_tokens_stay_float_by_their_names(
    tmp_path, calibration, validation_images, format
):
    torch.manual_seed(0)
    network = _Mixer().eval()
    x = torch.from_numpy(validation_images)
    fake = FakeQuantized(network, Scheme(), lambda: iter([x]), x[:1])
    left = ("wide", "narrow", "last")
    assert set(left) < fake.layers.keys()
    some = (tmp_path, network, calibration, validation_images)
    (file,) = written(*some, "int8", formats=(format,), float_layers=left)
    assert set(left) <= set(file.float_layers)
    (file,) = written(*some, "int8-weights", formats=(format,), float_layers=left)
    assert file.float_layers == left


def test_tensorrt_holds_no_other_format_to_integers() -> None:
    board = load_board("jetson")
    assert "TensorRT" in (why_not_float_layers(board, "onnx") or "")
    assert why_not_float_layers(board, "tflite") is None
