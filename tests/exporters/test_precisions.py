"""Every way to store and compute, in both formats, and who refuses which."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from exporting import exported
from hypothesis import given
from hypothesis import strategies as st

from boards import load_board
from boards.parts import FILE_PRECISIONS, Runtime
from exporters import UnsupportedExportError
from exporters.artifacts import file_name
from exporters.checks import tflite_runner
from exporters.inspect_tflite import TfliteGraph
from exporters.onnx_weights import _constant, quantized_weight
from exporters.support import why_not

BITS = {"int8-weights": 8, "int4-weights": 4, "int2-weights": 2}
NEW = ("int8-dynamic", "int8-weights", "int4-weights", "int2-weights", "int8-int16")
WEIGHTS = ("conv1", "block1.conv1", "gate.down", "linear")


def new_board():
    """x86-64 with an onnxruntime that reads opset 21."""
    runtimes = (
        Runtime(name="onnxruntime", min_version="1.20"),
        Runtime(name="litert", min_version="2.3"),
    )
    return load_board("x86-64").model_copy(update={"runtimes": runtimes})


@pytest.fixture(scope="module")
def folder(tmp_path_factory, small_net, calibration, validation_images):
    """All new precisions, in either format that has them: path and entries by name."""
    path, files = tmp_path_factory.mktemp("precisions"), []
    for format in ("onnx", "tflite"):
        precisions = [p for p in ("float32", *NEW) if why_not(new_board(), format, p) is None]
        files += exported(
            small_net, path, validation_images, *precisions,
            calibration=calibration, board=new_board(), formats=(format,),
        )  # fmt: skip
    return path, {file.name: file for file in files}


def logits(path, images: np.ndarray) -> np.ndarray:
    if path.suffix == ".tflite":
        return tflite_runner(path, ["logits"])(images)[0]
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {"input": images})[0]


def test_every_precision_is_written_but_two_bits_in_onnx(folder):
    _, files = folder
    wanted = {file_name("slim", p, f) for p in ("float32", *NEW) for f in ("onnx", "tflite")}
    assert files.keys() == wanted - {"slim.int2-weights.onnx"}
    assert all(file.float_layers == () for file in files.values())


def test_answers_are_torchs_up_to_the_bits(folder, small_net, validation_images):
    path, files = folder
    with torch.no_grad():
        wanted = small_net(torch.from_numpy(validation_images)).numpy()
    for name, file in files.items():
        found = logits(path / name, validation_images)
        agreement = (found.argmax(1) == wanted.argmax(1)).mean()
        assert file.agreement_validation == pytest.approx(agreement, abs=0.02)
        if file.precision in ("int8-dynamic", "int8-weights", "int8-int16"):
            assert agreement >= 0.97
            assert np.abs(found - wanted).max() <= 0.1 * np.abs(wanted).max()
        elif file.precision == "int4-weights":
            assert agreement >= 0.8


@pytest.mark.parametrize("format", ["onnx", "tflite"])
def test_weights_only_files_are_torch_with_rounded_weights(
    folder, small_net, validation_images, format
):
    from exporters.prepare import deployable

    path, files = folder
    for precision, bits in BITS.items():
        name = file_name("slim", precision, format)
        if name not in files:
            continue
        rounded = deployable(small_net, (3, 16, 16), print)
        for module in rounded.modules():
            if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
                weight = module.weight.detach().numpy()
                limit = 2 ** (bits - 1) - 1
                step = np.abs(weight).reshape(len(weight), -1).max(1) / limit
                step = np.maximum(step, 1e-30).reshape(-1, *[1] * (weight.ndim - 1))
                values = np.clip(np.rint(weight / step), -limit, limit) * step
                module.weight.data = torch.from_numpy(values.astype(np.float32))
        with torch.no_grad():
            wanted = rounded(torch.from_numpy(validation_images)).numpy()
        found = logits(path / name, validation_images)
        # a weight in the middle of a step may be rounded to either side
        assert np.abs(found - wanted).max() <= 0.03 * np.abs(wanted).max()


def test_files_shrink_with_the_bits(folder):
    _, files = folder
    for format in ("onnx", "tflite"):
        weights = {
            p: files[file_name("slim", p, format)].weight_bytes
            for p in ("float32", *NEW)
            if file_name("slim", p, format) in files
        }
        eight = weights["int8-weights"]["int8"]
        assert eight == pytest.approx(weights["float32"]["float32"] / 4, rel=0.1)
        assert weights["int4-weights"]["int4"] == pytest.approx(eight / 2, rel=0.02)
        if format == "tflite":
            assert weights["int2-weights"]["int2"] == pytest.approx(eight / 4, rel=0.05)
        sizes = [files[file_name("slim", p, format)].size_bytes for p in ("float32", *BITS)[:3]]
        assert sizes == sorted(sizes, reverse=True)


@pytest.mark.parametrize("groups", [1, 2])
def test_transposed_convolutions_are_halved_too(tmp_path, calibration, validation_images, groups):
    torch.manual_seed(0)
    up = torch.nn.ConvTranspose2d(8, 4, 2, stride=2, groups=groups)
    layers = torch.nn.Conv2d(3, 8, 3, 4, 1), torch.nn.ReLU(), up
    network = torch.nn.Sequential(*layers, torch.nn.Flatten()).eval()
    (file,) = exported(
        network, tmp_path, validation_images, "float16",
        calibration=calibration, board=new_board(), formats=("tflite",),
    )  # fmt: skip
    assert file.weight_bytes["float16"] == 2 * (layers[0].weight.numel() + up.weight.numel())
    with torch.no_grad():
        wanted = network(torch.from_numpy(validation_images)).numpy()
    found = logits(tmp_path / file.path, validation_images)
    assert np.abs(found - wanted).max() <= 2e-3 * np.abs(wanted).max()


def test_types_between_layers(folder):
    path, files = folder
    wide = files["slim.int8-int16.tflite"]
    assert (wide.input.dtype, wide.output.dtype, wide.input.zero_point) == ("int16", "int16", 0)
    for name in ("slim.int8-dynamic.tflite", "slim.int4-weights.tflite"):
        assert (files[name].input.dtype, files[name].output.dtype) == ("float32", "float32")
    graph = TfliteGraph(path / "slim.int8-dynamic.tflite")
    for operator in graph.operators:
        if graph.op_name(operator) in ("CONV_2D", "FULLY_CONNECTED"):
            assert [graph.dtype(int(i)) for i in operator.inputs[:2]] == ["float32", "int8"]
    model = onnx.load(str(path / "slim.int8-int16.onnx"))
    constants = {c.name: c for c in model.graph.initializer}
    kinds = {
        constants[node.input[2]].data_type
        for node in model.graph.node
        if node.op_type == "QuantizeLinear"
    }
    assert kinds == {onnx.TensorProto.UINT16}
    assert model.opset_import[0].version == 21 and len(model.opset_import) == 1


def test_dynamic_convolutions_run_on_integers(folder):
    file = folder[1]["slim.int8-dynamic.onnx"]
    assert (file.convs, file.fused_integer_convs) == (9, 9)


@given(
    st.integers(2, 8).filter(lambda bits: bits in (4, 8)),
    st.sampled_from([None, 0, 1]),
    st.integers(0, 10**6),
)
def test_a_rounded_weight_is_within_half_a_step(bits, axis, seed):
    weight = np.random.default_rng(seed).normal(size=(4, 3, 2)).astype(np.float32)
    weight[0] = 0
    integers, scale = quantized_weight(weight, bits, axis)
    shape = [1, 1, 1]
    if axis is not None:
        shape[axis] = -1
    error = np.abs(integers.astype(np.float32) * scale.reshape(shape) - weight)
    assert (error <= 0.5001 * scale.reshape(shape)).all()
    assert np.abs(integers.astype(int)).max() == 2 ** (bits - 1) - 1


@given(st.lists(st.integers(-7, 7), min_size=1, max_size=9))
def test_four_bits_are_packed_as_onnx_reads_them(values):
    constant = _constant("c", np.array(values, np.int8), 4)
    assert onnx.numpy_helper.to_array(constant).astype(int).tolist() == values
    assert len(constant.raw_data) == (len(values) + 1) // 2


@pytest.mark.parametrize(
    ("board", "format", "precision", "says"),
    [
        ("x86-64", "onnx", "int4-weights", "need opset 21.*x86-64 may have reads 19"),
        ("x86-64", "onnx", "int8-int16", "need opset 21"),
        ("x86-64", "onnx", "int2-weights", "for TFLite files"),
        ("jetson", "onnx", "int8-dynamic", "TensorRT.*int8 instead of int8-dynamic"),
        ("jetson-nano", "onnx", "int8-dynamic", "no INT8 rules for onnx"),
        ("stm32h747", "tflite", "int8-weights", "int8 files only.*microcontroller"),
        ("coral", "tflite", "int8-int16", "int8 files only.*Edge TPU"),
    ],
)
def test_who_refuses_what(
    board, format, precision, says, small_net, tmp_path, calibration, validation_images
):
    with pytest.raises(UnsupportedExportError, match=says) as caught:
        exported(
            small_net, tmp_path, validation_images, precision,
            calibration=calibration, board=load_board(board), formats=(format,),
        )  # fmt: skip
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_what_every_board_is_for_is_never_refused():
    for name in ("x86-64", "jetson", "jetson-nano", "coral", "stm32h747", "rpi5"):
        board = load_board(name)
        for format in board.formats:
            for precision in ("float32", board.target_precision):
                assert why_not(board, format, precision) is None
    assert all(why_not(new_board(), "tflite", precision) is None for precision in FILE_PRECISIONS)
