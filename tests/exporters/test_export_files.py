"""What export_files writes: against torch, against the board's limits, against its promises."""

from __future__ import annotations

import copy

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from boards import load_board
from exporters import (
    Calibration,
    CalibrationError,
    ExportError,
    UnsupportedExportError,
    export_files,
)
from exporters.prepare import deployable


def torch_logits(model: nn.Module, images: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return model(torch.from_numpy(images)).numpy()


def onnx_logits(path, images: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {"input": images})[0]


def tflite_logits(path, images: np.ndarray) -> np.ndarray:
    """Written apart from the package's own runner, as an oracle."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path))
    interpreter.allocate_tensors()
    entry, result = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    rows = []
    for image in images:
        value = np.moveaxis(image, 0, -1)[None]
        if entry["dtype"] == np.int8:
            scale, zero = entry["quantization"]
            value = np.clip(np.rint(value / scale + zero), -128, 127).astype(np.int8)
        interpreter.set_tensor(entry["index"], value)
        interpreter.invoke()
        logits = interpreter.get_tensor(result["index"])[0].astype(np.float32)
        if result["dtype"] == np.int8:
            scale, zero = result["quantization"]
            logits = (logits - zero) * scale
        rows.append(logits)
    return np.stack(rows)


RUN = {"onnx": onnx_logits, "tflite": tflite_logits}


@pytest.mark.parametrize("format", ["onnx", "tflite"])
def test_float_files_compute_what_torch_computes(pc_folder, validation_images, format):
    wanted = torch_logits(pc_folder.model, validation_images)
    found = RUN[format](pc_folder.path / f"slim.float32.{format}", validation_images)
    assert np.abs(found - wanted).max() <= 1e-4 * np.abs(wanted).max()
    assert pc_folder.file(f"slim.float32.{format}").agreement_validation == 1.0


@pytest.mark.parametrize("format", ["onnx", "tflite"])
def test_int8_files_agree_with_torch(pc_folder, validation_images, format):
    wanted = torch_logits(pc_folder.model, validation_images)
    found = RUN[format](pc_folder.path / f"slim.int8.{format}", validation_images)
    agreement = float((found.argmax(1) == wanted.argmax(1)).mean())
    assert agreement >= 0.97
    assert np.abs(found - wanted).max() <= 0.25 * np.abs(wanted).max()
    assert pc_folder.file(f"slim.int8.{format}").agreement_validation == pytest.approx(agreement)


@pytest.mark.parametrize("format", ["onnx", "tflite"])
def test_jetson_and_half_files_agree_with_torch(
    jetson_folder, half_folder, validation_images, format
):
    wanted = torch_logits(jetson_folder.model, validation_images)
    found = RUN[format](jetson_folder.path / f"slim.int8.{format}", validation_images)
    assert (found.argmax(1) == wanted.argmax(1)).mean() >= 0.97
    half = RUN[format](half_folder.path / f"slim.float16.{format}", validation_images)
    assert np.abs(half - wanted).max() <= 0.02 * np.abs(wanted).max()


def test_every_convolution_runs_on_integers_in_onnxruntime(pc_folder):
    file = pc_folder.file("slim.int8.onnx")
    assert file.convs == 9
    assert file.fused_integer_convs == 9
    assert file.float_layers == ()
    assert pc_folder.file("slim.int8.tflite").float_layers == ()


def test_no_float_islands_between_integer_convolutions(pc_folder, tmp_path):
    optimized = tmp_path / "optimized.onnx"
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(optimized)
    options.log_severity_level = 3
    onnxruntime.InferenceSession(
        str(pc_folder.path / "slim.int8.onnx"), options, providers=["CPUExecutionProvider"]
    )
    counts = [node.op_type for node in onnx.load(str(optimized)).graph.node]
    assert counts.count("QuantizeLinear") == 1  # the image; the logits come out of QGemm as float
    assert counts.count("DequantizeLinear") == 0
    assert "Add" not in counts and "Relu" not in counts and "Mul" not in counts


def test_files_are_single_and_within_the_boards_limits(pc_folder, half_folder):
    for folder, board in ((pc_folder, "x86-64"), (half_folder, "jetson-nano")):
        limits = load_board(board)
        for path in folder.path.glob("*.onnx"):
            model = onnx.load(str(path))
            assert [entry.domain for entry in model.opset_import] == [""]
            assert model.opset_import[0].version == min(18, limits.onnx_opset_max)
            assert model.ir_version == min(8, limits.onnx_ir_max)
        assert {path.name for path in folder.path.iterdir()} == {f.path for f in folder.files}
        assert all(f.size_bytes == (folder.path / f.path).stat().st_size for f in folder.files)


def test_io_is_as_the_contract_says(pc_folder):
    onnx_file, tflite_file = pc_folder.file("slim.int8.onnx"), pc_folder.file("slim.int8.tflite")
    assert onnx_file.input.shape == (-1, 3, 16, 16)
    assert (onnx_file.input.dtype, onnx_file.input.layout) == ("float32", "NCHW")
    assert onnx_file.output.shape == (-1, 4) and onnx_file.output.dtype == "float32"
    assert tflite_file.input.shape == (1, 16, 16, 3)
    assert (tflite_file.input.dtype, tflite_file.input.layout) == ("int8", "NHWC")
    assert tflite_file.output.shape == (1, 4) and tflite_file.output.dtype == "int8"
    assert tflite_file.input.scale > 0 and tflite_file.output.zero_point is not None


def test_int8_weights_are_a_quarter_of_float(pc_folder):
    for format in ("onnx", "tflite"):
        float_bytes = pc_folder.file(f"slim.float32.{format}").weight_bytes["float32"]
        int8_bytes = pc_folder.file(f"slim.int8.{format}").weight_bytes["int8"]
        assert int8_bytes == pytest.approx(float_bytes / 4, rel=0.08)


def test_layers_keep_their_names(pc_folder):
    model = onnx.load(str(pc_folder.path / "slim.int8.onnx"))
    names = [node.name for node in model.graph.node if node.op_type in ("Conv", "Gemm")]
    assert names == [
        name
        for name, module in pc_folder.model.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    ]


def test_export_leaves_the_callers_model_alone(small_net, validation_images):
    before = copy.deepcopy(small_net.state_dict())
    clone = deployable(small_net, (3, 16, 16), print)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in clone.modules())
    after = small_net.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert any(isinstance(module, nn.BatchNorm2d) for module in small_net.modules())
    wanted = torch_logits(small_net, validation_images)
    np.testing.assert_allclose(torch_logits(clone, validation_images), wanted, atol=1e-4)


def test_a_model_that_fx_cannot_trace_is_exported_unfolded(validation_images):
    class Branching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.bn = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

        def forward(self, x):
            x = self.bn(self.conv(x))
            return x.mean((2, 3)) if bool(x.shape[0] > 0) and len(x) else x

    model = Branching().eval()
    clone = deployable(model, (3, 16, 16), print)
    np.testing.assert_allclose(
        torch_logits(clone, validation_images), torch_logits(model, validation_images), atol=1e-5
    )


def _arguments(tmp_path, calibration, images, **changes):
    return {
        "stage": "slim",
        "folder": tmp_path,
        "input_shape": (3, 16, 16),
        "calibration": calibration,
        "validation": lambda: iter([images[:8]]),
        "board": load_board("x86-64"),
        "formats": ("onnx",),
        "precisions": ("int8",),
        "progress": lambda text: None,
        **changes,
    }


def test_int8_without_rules_is_refused(small_net, tmp_path, calibration, validation_images):
    arguments = _arguments(
        tmp_path, calibration, validation_images, board=load_board("jetson-nano")
    )
    with pytest.raises(
        UnsupportedExportError, match=r"jetson-nano has no INT8 rules for onnx.*float16"
    ):
        export_files(small_net, **arguments)


def test_unusable_calibration_is_refused(small_net, tmp_path, calibration, validation_images):
    wrong = {
        "no calibration samples": lambda: iter([]),
        "float64": lambda: iter([np.zeros((2, 3, 16, 16))]),
        r"\[2, 3, 8, 8\]": lambda: iter([np.zeros((2, 3, 8, 8), np.float32)]),
        "NaN": lambda: iter([np.full((2, 3, 16, 16), np.nan, np.float32)]),
    }
    for message, batches in wrong.items():
        with pytest.raises(CalibrationError, match=message):
            list(Calibration(batches).checked((3, 16, 16)))
    arguments = _arguments(tmp_path, Calibration(lambda: iter([])), validation_images)
    with pytest.raises(CalibrationError, match="no calibration samples"):
        export_files(small_net, **arguments)


def test_a_failing_tool_is_named_in_one_line(tmp_path, calibration, validation_images, capfd):
    class Unexportable(nn.Module):
        def forward(self, x):
            rows = x.flatten(1)[:, :4]
            return rows if rows.sum() > 0 else -rows

    with pytest.raises(ExportError, match="^export to ONNX failed: ") as caught:
        export_files(Unexportable().eval(), **_arguments(tmp_path, calibration, validation_images))
    assert "\n" not in str(caught.value)
    captured = capfd.readouterr()
    assert captured.out == "" and captured.err == ""
