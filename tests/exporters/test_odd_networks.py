"""Networks whose files were once wrong without a word: every file must answer as torch does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from exporting import exported
from torch import Tensor, nn
from torch.nn import functional as F

from exporters import ExportError
from exporters.artifacts import Exported
from exporters.checks import Likeness, likeness, onnx_runner, tflite_runner
from exporters.onnx_qdq import Graph
from exporters.profiles.tflite_rules import litert_violations

SIZE = 13
IMAGES = np.random.default_rng(0).standard_normal((8, 3, SIZE, SIZE)).astype(np.float32)


class Net(nn.Module):
    """conv -> `middle` -> means -> linear -> `end`; `middle` sees all modules."""

    def __init__(
        self,
        middle: Callable[[Net, Tensor], Tensor] = lambda net, y: F.relu(y),
        end: Callable[[Tensor], Tensor] = lambda y: y,
        **modules: nn.Module,
    ) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.last = nn.Linear(8, 4)
        self.middle, self.end = middle, end
        for name, module in modules.items():
            setattr(self, name, module)

    def forward(self, x: Tensor) -> Tensor:
        return self.end(self.last(self.middle(self, self.first(x)).mean((2, 3))))


def worn(norm: nn.BatchNorm2d) -> nn.BatchNorm2d:
    """Give a batch norm statistics, and a scale and shift where it has them."""
    assert norm.running_mean is not None and norm.running_var is not None
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.2, 3)
    if norm.affine:
        norm.weight.data.uniform_(0.2, 3)
        norm.bias.data.normal_()
    return norm


def scaled_sum(net: Net, y: Tensor) -> Tensor:
    return F.relu((y + net.other(y)) * 0.5)


def two_norms(net: Net, y: Tensor) -> Tensor:
    y = F.max_pool2d(y, 2)
    y = y + net.conv(F.relu(net.one(y)))
    return F.relu(net.two(y))


def silenced(net: Net, y: Tensor) -> Tensor:
    return F.relu(net.norm(net.conv(F.relu(y))))


def silent_norm() -> nn.BatchNorm2d:
    norm = worn(nn.BatchNorm2d(8))
    norm.weight.data[:3] = torch.tensor([0.0, 1e-8, 1e-4])
    norm.bias.data[:3] = torch.tensor([0.4, 0.8, 1.2])
    return norm


def pooled(pool: nn.Module) -> Net:
    return Net(lambda net, y: net.conv(net.pool(F.relu(y))), pool=pool, conv=nn.Conv2d(8, 8, 1))


def vast() -> Net:
    net = Net()
    net.last.weight.data.zero_()
    net.first.weight.data.mul_(30)
    return net


NETS: dict[str, Callable[[], Net]] = {
    "relu at the end": lambda: Net(end=F.relu),
    "relu6 at the end": lambda: Net(end=F.relu6),
    "a factor before a relu": lambda: Net(scaled_sum, other=nn.Conv2d(8, 8, 3, padding=1)),
    "a limit above zero": lambda: Net(lambda net, y: y.clamp(min=0.5)),
    "a limit below zero": lambda: Net(lambda net, y: y.clamp(max=-0.25)),
    "norms of equal scales": lambda: Net(
        two_norms,
        one=worn(nn.BatchNorm2d(8, affine=False)),
        two=worn(nn.BatchNorm2d(8, affine=False)),
        conv=nn.Conv2d(8, 8, 3, padding=1),
    ),
    "silenced channels": lambda: Net(
        silenced, norm=silent_norm(), conv=nn.Conv2d(8, 8, 3, padding=1, bias=False)
    ),
    "a linear layer of zeros": vast,
    "a norm behind a transposed convolution": lambda: Net(
        lambda net, y: F.relu(net.norm(net.up(F.relu(y)))),
        up=nn.ConvTranspose2d(8, 8, 2, 2),
        norm=worn(nn.BatchNorm2d(8)),
    ),
    "windows beyond the image": lambda: pooled(nn.AvgPool2d(2, 2, ceil_mode=True)),
    "windows beyond counted pads": lambda: pooled(nn.AvgPool2d(3, 2, 1, ceil_mode=True)),
    "pads that don't count": lambda: pooled(nn.AvgPool2d(3, 2, 1, count_include_pad=False)),
    "windows with gaps": lambda: pooled(nn.MaxPool2d(3, 2, 1, dilation=2)),
    "a transposed convolution that doubles the image": lambda: Net(
        lambda net, y: net.up(F.relu(y)), up=nn.ConvTranspose2d(8, 8, 3, 2, 1, 1)
    ),
    "a transposed convolution in groups": lambda: Net(
        lambda net, y: net.up(F.relu(y)), up=nn.ConvTranspose2d(8, 8, 3, 2, 1, 1, groups=2)
    ),
}


def errors(network: nn.Module, folder: Path, files: tuple[Exported, ...]) -> dict[str, float]:
    """The largest difference from torch of each file, of torch's largest output."""
    with torch.no_grad():
        wanted = network(torch.from_numpy(IMAGES)).numpy()
    found = {}
    for file in files:
        runner = onnx_runner if file.format == "onnx" else tflite_runner
        (outputs,) = runner(folder / file.path, [file.output.name])(IMAGES)
        found[file.name] = float(np.abs(outputs - wanted).max() / np.abs(wanted).max())
    return found


@pytest.mark.parametrize("kind", NETS)
def test_int8_files_answer_as_torch_does(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = NETS[kind]().eval()
    files = exported(network, tmp_path, IMAGES, "int8")
    assert max(errors(network, tmp_path, files).values()) < 0.06
    assert all(file.float_layers == () for file in files)


def test_silenced_channels_keep_their_biases_in_16_bits(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = NETS["silenced channels"]().eval()
    files = exported(network, tmp_path, IMAGES, "int8-int16", formats=("tflite",))
    assert max(errors(network, tmp_path, files).values()) < 0.02


@pytest.mark.parametrize("twice", ["conv", "norm"])
def test_a_module_with_two_names_is_folded_once(twice: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    conv, norm = nn.Conv2d(8, 8, 3, padding=1), worn(nn.BatchNorm2d(8))
    network = Net(
        lambda net, y: net.body(y),
        alias=conv if twice == "conv" else norm,
        body=nn.Sequential(conv, norm, nn.ReLU()),
    ).eval()
    files = exported(network, tmp_path, IMAGES, "float32")
    assert max(errors(network, tmp_path, files).values()) < 1e-4


def test_a_layer_with_a_factor_behind_it_keeps_its_name(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = Net(lambda net, y: F.relu(net.mid(y) * 0.5), mid=nn.Conv2d(8, 8, 3)).eval()
    for file in exported(network, tmp_path, IMAGES, "int8", float_layers=["mid"]):
        assert file.float_layers == ("mid",)


def test_files_are_compared_with_the_network_as_it_came(tmp_path, monkeypatch) -> None:
    network = Net().eval()
    monkeypatch.setattr("exporters.export.deployable", lambda *_: Net().eval())
    with pytest.raises(ExportError, match="differ from torch's"):
        exported(network, tmp_path, IMAGES, "float32", formats=("onnx",))


class Named(nn.Module):
    """Two outputs under any two names, or one under both."""

    def __init__(self, first: str, second: str, same: bool = False) -> None:
        super().__init__()
        self.conv, self.last = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8, 4)
        self.names, self.same = (first, second), same

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        y = F.relu(self.conv(x))
        scores = self.last(y.mean((2, 3)))
        return dict(zip(self.names, (scores, scores if self.same else y), strict=True))


@pytest.mark.parametrize(
    ("network", "names"),
    [
        (Named("c1", "t2"), ("c1", "t2")),
        (Named("input", "out"), ("input_2", "out")),
        (Named("a.b", "a_b"), ("a_b", "a_b_2")),
        (Named("out", "logits", same=True), ("out",)),
    ],
    ids=["numbered", "input", "alike", "twice"],
)
def test_names_of_outputs(network: Named, names: tuple[str, ...], tmp_path: Path) -> None:
    torch.manual_seed(0)
    with torch.no_grad():
        wanted = [value.numpy() for value in network.eval()(torch.from_numpy(IMAGES)).values()]
    for file in exported(network, tmp_path, IMAGES, "int8"):
        assert (file.output.name, *(spec.name for spec in file.more_outputs)) == names
        runner = onnx_runner if file.format == "onnx" else tflite_runner
        for found, value in zip(runner(tmp_path / file.path, names)(IMAGES), wanted, strict=False):
            assert np.abs(found - value).max() < 0.06 * np.abs(value).max()


def test_a_saturated_bias_is_a_violation(tmp_path: Path) -> None:
    from exporters.inspect_tflite import TfliteGraph
    from exporters.tflite_pack import put_in_place

    (file,) = exported(Net().eval(), tmp_path, IMAGES, "int8", formats=("tflite",))
    path = tmp_path / file.path
    assert litert_violations(path) == []
    graph = TfliteGraph(path)
    (layer,) = [op for op in graph.operators if graph.op_name(op) == "CONV_2D"]
    buffer = graph.model.buffers[graph.tensors[int(layer.inputs[2])].buffer]
    values = np.frombuffer(bytes(buffer.data), np.int32).copy()
    values[0] = np.iinfo(np.int32).min
    buffer.data = values.view(np.uint8)
    put_in_place(path, graph.model)
    (violation,) = litert_violations(path)
    assert "too large for its scale" in violation


def test_outputs_far_from_torchs_are_a_warning(tmp_path: Path, monkeypatch) -> None:
    lines: list[str] = []
    monkeypatch.setattr(
        "exporters.export.checks.likeness", lambda *_, **__: Likeness(agreement=1.0, error=0.5)
    )
    exported(Net().eval(), tmp_path, IMAGES, "int8", formats=("onnx",), progress=lines.append)
    assert [line for line in lines if "50% of their size" in line]


@pytest.mark.parametrize(("channels", "agreement"), [(1, None), (3, 2 / 3)])
def test_likeness_by_hand(channels: int, agreement: float | None) -> None:
    wanted = np.eye(3, dtype=np.float32)[:, :channels] + 1
    found = wanted.copy()
    found[2] = wanted[2] + np.arange(channels, 0, -1)  # another class, where there are several
    result = likeness("f", lambda x: [found], lambda: iter([wanted]), [[wanted]], precision="int8")
    assert result.agreement == (None if agreement is None else pytest.approx(agreement))
    off = np.square(found - wanted).sum() / np.square(wanted).sum()
    assert result.error == pytest.approx(float(np.sqrt(off)))


def test_constants_of_one_name_are_refused() -> None:
    graph = Graph(onnx.helper.make_model(onnx.helper.make_graph([], "empty", [], [])))
    graph.add_constant("scale", 1.0)
    with pytest.raises(ValueError, match="'scale' already"):
        graph.add_constant("scale", 2.0)
