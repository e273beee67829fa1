"""What fake-quantized torch answers is what the exported files answer."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from exporting import exported
from small_net import INPUT_SHAPE, Folder, stream
from torch import Tensor, nn
from torch.nn import functional as F

from boards import Board, load_board
from boards.parts import CalibrationMethod, FilePrecision
from compressor.quantization.fake import FakeQuantized
from compressor.quantization.scheme import Scheme
from exporters import Calibration, Exported
from exporters.checks import onnx_runner, tflite_runner
from exporters.clipping import Grid, Range
from exporters.onnx_qdq import Graph
from exporters.ranges import Observe, find_ranges

BOARD = load_board("x86-64")
TENSORRT = load_board("jetson")
SYMMETRIC = BOARD.model_copy(update={"quantization": BOARD.quantization.changed(symmetric=True)})
WIDE = BOARD.model_copy(  # the first that reads 16-bit integers
    update={"runtimes": [r.model_copy(update={"min_version": "1.18"}) for r in BOARD.runtimes]}
)
Ranges = Mapping[str, Range]
RUNNERS = {"onnx": onnx_runner, "tflite": tflite_runner}


def of_torch(
    model: nn.Module,
    precision: FilePrecision,
    format: str,
    calibration: Calibration,
    images: np.ndarray,
    left: Sequence[str] = (),
    method: CalibrationMethod = "minmax",
    board: Board = BOARD,
) -> np.ndarray:
    """Answers of the fake-quantized network, float32 [N, classes]; some layers left in float."""

    def find(observe: Observe, bits: int, symmetric: bool, exact: Collection[str]) -> Ranges:
        return find_ranges(observe, method, Grid(bits, symmetric), exact)

    def samples() -> Iterator[torch.Tensor]:
        return (torch.from_numpy(batch) for batch in calibration.batches())

    rules = board.quantization.onnx if format == "onnx" else board.quantization.tflite
    x = torch.from_numpy(images)
    scheme = Scheme.of(precision, rules)
    finder = None if method == "minmax" else find
    net = FakeQuantized(copy.deepcopy(model), scheme, samples, x[:1], finder).eval()
    net.float_layers = left
    with torch.no_grad():
        return net(x).numpy()


def rounding_error(model: nn.Module, images: np.ndarray, expected: np.ndarray) -> float:
    """Mean difference between a network's answers and those of its fake-quantized copy."""
    with torch.no_grad():
        unrounded = model(torch.from_numpy(images)).numpy()
    return float(np.abs(unrounded - expected).mean())


def file_answers(
    folder: Path,
    model: nn.Module,
    precision: FilePrecision,
    format: str,
    calibration: Calibration,
    images: np.ndarray,
    board: Board,
) -> tuple[Exported, np.ndarray]:
    """Export one file and return it with its answers, float32 [N, classes]."""
    (file,) = exported(
        model,
        folder,
        images,
        precision,
        calibration=calibration,
        validation=lambda: stream(images, 50),
        board=board,
        formats=(format,),
    )
    (answers,) = RUNNERS[format](folder / file.path, [file.output.name])(images)
    return file, answers


def assert_alike(found: np.ndarray, expected: np.ndarray, step: float) -> None:
    """At least 99.5 % of the same classes, answers within two steps of the output."""
    assert (found.argmax(axis=1) == expected.argmax(axis=1)).mean() >= 0.995
    assert np.abs(found - expected).max() <= 2 * step * 1.001


@pytest.mark.parametrize(
    ("board", "format", "share"),
    [
        (BOARD, "onnx", 0.5),
        (BOARD, "tflite", 0.8),  # TFLite's outputs are rounded, so one step is a lot
        (TENSORRT, "onnx", 0.25),
    ],
    ids=lambda value: value.id if isinstance(value, Board) else value,
)
def test_int8_files_answer_as_fake_quantized_torch(
    pc_folder: Folder,
    jetson_folder: Folder,
    calibration: Calibration,
    validation_images: np.ndarray,
    board: Board,
    format: str,
    share: float,
) -> None:
    folder = jetson_folder if board is TENSORRT else pc_folder
    step = folder.file("slim.int8.tflite").output.scale
    assert step is not None
    file = folder.file(f"slim.int8.{format}")
    (answers,) = RUNNERS[format](folder.path / file.path, [file.output.name])(validation_images)
    expected = of_torch(folder.model, "int8", format, calibration, validation_images, board=board)
    assert_alike(answers, expected, step)
    rounding = rounding_error(folder.model, validation_images, expected)
    assert np.abs(answers - expected).mean() < share * rounding  # the same rounding, not just near


@pytest.mark.parametrize(
    ("precision", "format"),
    [
        ("int8-weights", "onnx"),
        ("int4-weights", "tflite"),
        ("int2-weights", "tflite"),
        ("int8-int16", "onnx"),
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
    _, answers = file_answers(
        tmp_path, small_net, precision, format, calibration, validation_images, WIDE
    )
    expected = of_torch(small_net, precision, format, calibration, validation_images)
    rounding = rounding_error(small_net, validation_images, expected)
    assert rounding > 0
    assert np.abs(answers - expected).mean() < 0.1 * rounding + 1e-5


def test_sixteen_bits_follow_the_boards_rules_in_onnx(tmp_path) -> None:
    """With a zero point and float biases; weights are exact, so inputs alone are rounded."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 4)).eval()
    with torch.no_grad():
        model[1].weight.copy_(torch.randint(-127, 128, (4, 192)) / 127)
        model[1].weight[:, 0] = 1
    images = np.random.default_rng(0).uniform(-0.2, 1, (64, 3, 8, 8)).astype(np.float32)
    calibration = Calibration(lambda: stream(images, 16))
    _, answers = file_answers(tmp_path, model, "int8-int16", "onnx", calibration, images, WIDE)
    expected = of_torch(model, "int8-int16", "onnx", calibration, images)
    rounding = rounding_error(model, images, expected)
    assert np.abs(answers - expected).mean() < 0.1 * rounding


class Branches(nn.Module):
    """An addition of what one or two convolutions make, read elsewhere or not, and what follows."""

    def __init__(self, answer: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8)
        self.one, self.two = nn.Conv2d(8, 8, 3, 1, 1), nn.Conv2d(8, 8, 3, 1, 1)
        self.head, self.answer = nn.Linear(8, 4), answer

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.answer(self, F.relu(self.stem(x))).mean((2, 3)))


def _read_elsewhere(net: Any, x: Tensor) -> Tensor:
    one = net.one(x)
    return (one + net.two(x)) * one


BRANCHES: Mapping[str, Callable[[Any, Tensor], Tensor]] = {
    "first": lambda net, x: F.relu(net.one(x) + x),
    "second": lambda net, x: F.relu(x + net.norm(net.one(x))),
    "both": lambda net, x: net.one(x) + net.two(x),
    "read elsewhere": _read_elsewhere,
    "activated": lambda net, x: F.relu(net.one(x)) + F.leaky_relu(net.two(x)),
    "in place": lambda net, x: net.one(x).add_(x).relu_(),
    "product": lambda net, x: (x * net.one(x)).clamp(0.0, 0.3) + x,
}


@pytest.mark.parametrize("name", BRANCHES)
def test_branches_are_rounded_as_in_files_for_tensorrt(tmp_path, name: str) -> None:
    torch.manual_seed(0)
    model = Branches(BRANCHES[name]).eval()
    images = np.random.default_rng(0).standard_normal((96, *INPUT_SHAPE)).astype(np.float32)
    calibration = Calibration(lambda: stream(images, 16))
    _, answers = file_answers(tmp_path, model, "int8", "onnx", calibration, images, TENSORRT)
    expected = of_torch(model, "int8", "onnx", calibration, images, board=TENSORRT)
    rounding = rounding_error(model, images, expected)
    # The median, as a value in the middle of a step may be rounded to either side.
    assert np.median(np.abs(answers - expected)) < 0.02 * rounding


def test_symmetric_activations_of_uint8_have_127_steps_on_either_side(tmp_path) -> None:
    torch.manual_seed(0)
    model = Branches(BRANCHES["first"]).eval()
    images = np.random.default_rng(0).standard_normal((96, *INPUT_SHAPE)).astype(np.float32)
    calibration = Calibration(lambda: stream(images, 16))
    file, answers = file_answers(tmp_path, model, "int8", "onnx", calibration, images, SYMMETRIC)
    graph = Graph(onnx.load(str(tmp_path / file.path)))
    pairs = [node for node in graph.model.graph.node if node.op_type == "QuantizeLinear"]
    grids = {node.input[0]: [graph.constants[name] for name in node.input[1:]] for node in pairs}
    assert {(zero.dtype.name, int(zero)) for _, zero in grids.values()} == {("uint8", 128)}
    scale = float(grids[file.input.name][0])
    assert scale == pytest.approx(np.abs(images).max() / 127, rel=1e-5)
    expected = of_torch(model, "int8", "onnx", calibration, images, board=SYMMETRIC)
    rounding = rounding_error(model, images, expected)
    assert np.abs(answers - expected).mean() < 0.1 * rounding


class Tokens(nn.Module):
    """Pixels as tokens of 8 numbers, and an operation on them that returns a tuple."""

    def __init__(self, inner: nn.Module, answer: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.stem, self.conv = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, 2, 1)
        self.inner, self.answer = inner, answer
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        tokens = F.relu(self.conv(F.relu(self.stem(x)))).flatten(2).transpose(1, 2)  # (N, 16, 8)
        return self.head(self.answer(self.inner, tokens))


TUPLES = {
    "maximum": (nn.Identity, lambda _, t: t.max(1)[0]),
    "highest": (nn.Identity, lambda _, t: t.topk(3, dim=1)[0].mean(1)),
    "split": (nn.Identity, lambda _, t: torch.mul(*t.tensor_split(2, 1)).mean(1)),
    "recurrent": (lambda: nn.LSTM(8, 8, batch_first=True), lambda m, t: m(t)[0].mean(1)),
    "attention": (
        lambda: nn.MultiheadAttention(8, 2, batch_first=True),
        lambda m, t: m(t, t, t)[0].mean(1),
    ),
}


@pytest.mark.parametrize(
    ("name", "format"),
    [
        (n, f) for n in TUPLES for f in RUNNERS if (n, f) != ("highest", "tflite")
    ],  # no sorting there
)
def test_what_returns_tuples_is_rounded_as_in_files(
    tmp_path,
    calibration: Calibration,
    validation_images: np.ndarray,
    name: str,
    format: str,
) -> None:
    """Behind a layer that is left in float: so all that is rounded is looked up."""
    torch.manual_seed(0)
    inner, answer = TUPLES[name]
    model = Tokens(inner(), answer).eval()
    (file,) = exported(
        model,
        tmp_path,
        validation_images,
        "int8",
        calibration=calibration,
        validation=lambda: stream(validation_images, 50),
        formats=(format,),
        float_layers=("stem",),
    )
    (answers,) = RUNNERS[format](tmp_path / file.path, [file.output.name])(validation_images)
    expected = of_torch(model, "int8", format, calibration, validation_images, ["stem"])
    with torch.no_grad():
        unrounded = model(torch.from_numpy(validation_images)).numpy()
    rounding = np.abs(unrounded - answers).mean()
    # The median, as a value in the middle of a step may be rounded to either side. Files also round
    # inside attention.
    allowed = 0.9 if name == "attention" else 0.02
    assert np.median(np.abs(answers - expected)) < allowed * rounding


@pytest.mark.parametrize("precision", ["int8", "int8-weights"])
def test_grouped_transposed_convolutions_have_one_scale(tmp_path, precision: FilePrecision) -> None:
    """Their weights count the outputs of one group: too few scales for a bias."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, 4, 1), nn.ReLU(), nn.ConvTranspose2d(8, 4, 2, 2, groups=2),
        nn.Flatten(), nn.Linear(256, 4),
    ).eval()  # fmt: skip
    with torch.no_grad():
        model[2].weight[:, 0] *= 0.2  # of its own, this scale would be another
    images = np.random.default_rng(0).standard_normal((64, *INPUT_SHAPE)).astype(np.float32)
    calibration = Calibration(lambda: stream(images, 16))
    (file,) = exported(
        model,
        tmp_path,
        images,
        precision,
        calibration=calibration,
        validation=lambda: stream(images, 16),
        formats=("onnx",),
    )
    assert file.float_layers == ()
    (answers,) = onnx_runner(tmp_path / file.path, [file.output.name])(images)
    expected = of_torch(model, precision, "onnx", calibration, images)
    with torch.no_grad():
        unrounded = model(torch.from_numpy(images)).numpy()
    rounding = np.abs(unrounded - expected).mean()
    assert 0 < rounding < 0.02 * unrounded.std()
    assert np.median(np.abs(answers - expected)) < 0.02 * rounding


@pytest.mark.parametrize(
    ("method", "format"),
    [
        ("moving-average", "onnx"),
        ("percentile", "onnx"),
        ("entropy", "onnx"),
        ("entropy", "tflite"),
        ("mse", "onnx"),
    ],
)
def test_ranges_of_every_method_are_those_of_the_files(
    tmp_path, method: CalibrationMethod, format: str
) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 8, 2), nn.Sigmoid(),
        nn.Flatten(), nn.Linear(32, 4),
    ).eval()  # fmt: skip
    images = np.random.default_rng(0).standard_normal((48, *INPUT_SHAPE)).astype(np.float32)
    images[0, 0, 0, 0] = 25  # what all methods but the smallest and largest value clip
    calibration = Calibration(lambda: stream(images, 16))
    board = BOARD.model_copy(
        update={"quantization": BOARD.quantization.changed(calibration=method)}
    )
    _, answers = file_answers(tmp_path, model, "int8", format, calibration, images, board)
    expected = of_torch(model, "int8", format, calibration, images, method=method)
    widest = of_torch(model, "int8", format, calibration, images)
    share = {"onnx": 0.1, "tflite": 0.5}[format]  # TFLite's outputs are rounded, as above
    assert np.abs(answers - expected).mean() < share * np.abs(answers - widest).mean()


@pytest.mark.parametrize(("kind", "reduced"), [("convolution", True), ("linear", False)])
def test_weights_of_dynamic_files_are_unsigned(tmp_path, kind: str, reduced: bool) -> None:
    """An image of one 1 among zeros is exact at a scale of its own and brings a weight to light."""
    torch.manual_seed(0)
    layers = {
        "convolution": [nn.Conv2d(3, 4, 8, bias=False), nn.Flatten()],
        "linear": [nn.Flatten(), nn.Linear(192, 4, bias=False)],
    }
    model = nn.Sequential(*layers[kind]).eval()
    with torch.no_grad():
        for number, channel in enumerate(next(model.parameters())):
            channel.add_(0.05).mul_(1 + number)  # neither symmetric nor alike
    assert BOARD.quantization.onnx is not None
    rules = BOARD.quantization.onnx.model_copy(update={"reduce_range": reduced})
    board = BOARD.model_copy(
        update={"quantization": BOARD.quantization.model_copy(update={"onnx": rules})}
    )
    images = np.eye(192, dtype=np.float32).reshape(192, 3, 8, 8)
    (file,) = exported(
        model,
        tmp_path,
        images,
        "int8-dynamic",
        calibration=Calibration(lambda: stream(images, 64)),
        validation=lambda: stream(images, 64),
        board=board,
        formats=("onnx",),
    )
    run = onnx_runner(tmp_path / file.path, [file.output.name])
    answers = np.concatenate([run(image[None])[0] for image in images])
    x = torch.from_numpy(images)
    scheme = Scheme.of("int8-dynamic", rules)
    with torch.no_grad():
        expected = FakeQuantized(copy.deepcopy(model), scheme, lambda: [x], x[:1]).eval()(x).numpy()
        exact = model(x).numpy()
    np.testing.assert_allclose(answers, expected, rtol=0, atol=1e-6)
    assert np.abs(exact - expected).max() > 1e-4
