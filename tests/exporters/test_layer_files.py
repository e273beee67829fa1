"""One-layer files give what torch's layer gives, in both formats, within quantization error."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from boards import Board, load_board
from exporters.errors import UnsupportedExportError
from exporters.layer_files import (
    INPUT_SCALE,
    OUTPUT_SCALE,
    LayerSpec,
    layer_file,
    random_weights,
)

COPIES = 2
SPECS = {
    "plain": LayerSpec("conv", 5, 6, (3, 3), (1, 1), (1, 1), (1, 1), (7, 9)),
    "stride": LayerSpec("conv", 4, 8, (3, 3), (2, 2), (1, 1), (1, 1), (8, 8)),
    "pointwise": LayerSpec("conv", 8, 4, input_size=(5, 5)),
    "dilated": LayerSpec("conv", 3, 4, (3, 3), (1, 1), (2, 2), (2, 2), (9, 9)),
    "unpadded": LayerSpec("conv", 3, 4, (5, 3), (2, 1), (0, 0), (1, 1), (9, 9)),
    "depthwise": LayerSpec("depthwise", 6, 6, (3, 3), (1, 1), (1, 1), (1, 1), (8, 8)),
    "multiplied": LayerSpec("depthwise", 4, 8, (3, 3), (2, 2), (1, 1), (1, 1), (8, 8)),
    "linear": LayerSpec("linear", 24, 10),
    "rows": LayerSpec("linear", 24, 10, input_size=(6, 1)),
    "elementwise": LayerSpec("elementwise", 6, 6, input_size=(5, 4)),
}
GROUPED = LayerSpec("conv", 8, 12, (3, 3), (1, 1), (1, 1), (1, 1), (6, 6), groups=4)


def answers(file: bytes, inputs: list[np.ndarray], format: str) -> list[np.ndarray]:
    """Outputs of a file for NCHW inputs; TFLite's come back as NCHW too."""
    if format == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
        names = [given.name for given in session.get_inputs()]
        return session.run(None, dict(zip(names, inputs, strict=True)))
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=file, num_threads=1)
    interpreter.allocate_tensors()
    for details, value in zip(interpreter.get_input_details(), inputs, strict=True):
        given = value.transpose(0, 2, 3, 1) if value.ndim == 4 else value
        interpreter.set_tensor(details["index"], given)
    interpreter.invoke()
    found = [interpreter.get_tensor(d["index"]) for d in interpreter.get_output_details()]
    return [value.transpose(0, 3, 1, 2) if value.ndim == 4 else value for value in found]


def in_torch(spec: LayerSpec, inputs: list[np.ndarray], copy: int, per_channel: bool) -> np.ndarray:
    first = torch.from_numpy(inputs[0])
    if spec.kind == "elementwise":
        return (first + COPIES * torch.from_numpy(inputs[1])).numpy()
    weights = random_weights(spec, copy, per_channel)
    weight, bias = torch.from_numpy(weights.real), torch.from_numpy(weights.real_biases)
    if spec.kind == "linear":
        return F.linear(first, weight, bias).numpy()
    result = F.conv2d(
        first, weight, bias, spec.stride, spec.padding, spec.dilation, spec.conv_groups
    )
    return result.numpy()


def drawn_inputs(spec: LayerSpec, dtype: type) -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    shape: tuple[int, ...] = (1, spec.inputs, *spec.input_size)
    if spec.kind == "linear":
        shape = (spec.input_size[0], spec.inputs)
    count = 2 if spec.kind == "elementwise" else 1
    if dtype is np.float32:
        return [generator.standard_normal(shape).astype(np.float32) for _ in range(count)]
    limits = np.iinfo(dtype)
    return [generator.integers(limits.min, limits.max + 1, shape, dtype) for _ in range(count)]


def expected(spec: LayerSpec, inputs: list[np.ndarray], per_channel: bool) -> list[np.ndarray]:
    copies = 1 if spec.kind == "elementwise" else COPIES
    return [in_torch(spec, inputs, copy, per_channel) for copy in range(copies)]


def as_given(spec: LayerSpec, outputs: list[np.ndarray], format: str) -> list[np.ndarray]:
    """What a file gives of the whole outputs: one pixel of each copy for an ONNX convolution."""
    if format == "onnx" and spec.is_conv:
        return [np.concatenate([output[:, :, :1, :1] for output in outputs], axis=1)]
    return outputs


@pytest.fixture(scope="module")
def board() -> Board:
    return load_board("x86-64")


@pytest.mark.parametrize("format", ["onnx", "tflite"])
@pytest.mark.parametrize("name", SPECS)
def test_float_files_are_torchs_layers(name: str, format: str, board: Board) -> None:
    spec = SPECS[name]
    inputs = drawn_inputs(spec, np.float32)
    file = layer_file(spec, format=format, precision="float32", board=board, copies=COPIES)
    wanted = as_given(spec, expected(spec, inputs, True), format)
    found = answers(file, inputs, format)
    assert len(found) == len(wanted)
    for ours, theirs in zip(found, wanted, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("format", "board_name"), [("onnx", "x86-64"), ("onnx", "rpi4"), ("tflite", "x86-64")]
)
@pytest.mark.parametrize("a_scale_each", [True, False])
@pytest.mark.parametrize("name", SPECS)
def test_int8_files_are_within_a_step_of_torchs_layers(
    name: str, a_scale_each: bool, format: str, board_name: str
) -> None:
    spec, board = SPECS[name], load_board(board_name)
    if not a_scale_each:
        one_for_all = board.quantization.changed(per_channel=False)
        board = board.model_copy(update={"quantization": one_for_all})
    rules = board.quantization.onnx if format == "onnx" else board.quantization.tflite
    assert rules is not None
    dtype = np.int8
    if format == "onnx":
        assert board.quantization.onnx is not None
        dtype = getattr(np, board.quantization.onnx.activation_dtype)
    zero = 128 if dtype == np.uint8 else 0
    stored = drawn_inputs(spec, dtype)
    real = [((value.astype(np.float32) - zero) * INPUT_SCALE) for value in stored]
    per_channel = rules.per_channel_linear if spec.kind == "linear" else rules.per_channel_conv
    file = layer_file(spec, format=format, precision="int8", board=board, copies=COPIES)
    limits = np.iinfo(dtype)
    wanted = [
        np.clip(value / OUTPUT_SCALE + zero, limits.min, limits.max)
        for value in as_given(spec, expected(spec, real, per_channel), format)
    ]
    found = answers(file, stored, format)
    for ours, theirs in zip(found, wanted, strict=True):
        assert ours.dtype == dtype
        # each addition of a chain rounds
        steps = COPIES if spec.kind == "elementwise" else 1
        assert np.abs(ours.astype(np.float32) - theirs).max() <= 0.51 * steps + 0.01
        assert ours.std() > 10  # the comparison is not one of saturated values


def test_grouped_convolutions() -> None:
    board = load_board("x86-64")
    inputs = drawn_inputs(GROUPED, np.float32)
    file = layer_file(GROUPED, format="tflite", precision="float32", board=board, copies=COPIES)
    for ours, theirs in zip(
        answers(file, inputs, "tflite"), expected(GROUPED, inputs, True), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_int8_onnx_layers_run_on_integers(board: Board, tmp_path) -> None:
    """The timed file has the operators of the deployed one: nothing but integers inside."""
    import onnx
    import onnxruntime

    for name in ("plain", "depthwise", "linear", "elementwise"):
        path = tmp_path / f"{name}.onnx"
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(path)
        options.log_severity_level = 3
        file = layer_file(SPECS[name], format="onnx", precision="int8", board=board, copies=3)
        onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        operators = [node.op_type for node in onnx.load(str(path)).graph.node]
        integer = {"linear": "QGemm", "elementwise": "QLinearAdd"}.get(name, "QLinearConv")
        assert operators.count(integer) == 3
        assert not {"DequantizeLinear", "QuantizeLinear"} & set(operators)


def test_more_pools_change_nothing_but_time(board: Board) -> None:
    spec = SPECS["plain"]
    inputs = drawn_inputs(spec, np.float32)
    one, two = (
        answers(
            layer_file(spec, format="onnx", precision="float32", board=board, pools=pools),
            inputs,
            "onnx",
        )
        for pools in (1, 2)
    )
    np.testing.assert_array_equal(one[0], two[0])


def test_what_there_are_no_files_for(board: Board) -> None:
    with pytest.raises(UnsupportedExportError, match="float16 onnx"):
        layer_file(SPECS["plain"], format="onnx", precision="float16", board=board)
    nano = load_board("jetson-nano")
    with pytest.raises(UnsupportedExportError, match="jetson-nano: no layer files in int8"):
        layer_file(SPECS["plain"], format="onnx", precision="int8", board=nano)
    with pytest.raises(ValueError, match="nothing to compute"):
        LayerSpec("conv", 3, 4, (5, 5), input_size=(3, 3))
