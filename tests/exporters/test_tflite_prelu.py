"""PReLU in TFLite files: one slope a channel, and no second copy of the weights before it."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from exporting import exported
from torch import nn

from exporters import Exported
from exporters.checks import tflite_runner
from exporters.inspect_tflite import WEIGHTED, TfliteGraph
from exporters.tflite_prelu import with_prelus_on_planes

SHAPE = (3, 12, 12)
CHANNELS, HIDDEN = 8, 48


class Net(nn.Module):
    """Conv, BatchNorm, PReLU with a slope a channel, one with a single slope, linear, PReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, CHANNELS, 3, bias=False)
        self.norm, self.act = nn.BatchNorm2d(CHANNELS), nn.PReLU(CHANNELS)
        self.deep, self.single = nn.Conv2d(CHANNELS, CHANNELS, 3), nn.PReLU()
        self.hidden, self.vector = nn.Linear(CHANNELS * 8 * 8, HIDDEN), nn.PReLU(HIDDEN)
        self.head = nn.Linear(HIDDEN, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.single(self.deep(self.act(self.norm(self.conv(x)))))
        return self.head(self.vector(self.hidden(x.flatten(1))))


def images() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((32, *SHAPE)).astype(np.float32)


@pytest.fixture(scope="module")
def net() -> nn.Module:
    torch.manual_seed(0)
    model = Net().eval()
    for module in model.modules():
        if isinstance(module, nn.PReLU):
            nn.init.uniform_(module.weight, -0.5, 0.9)
    return model


@pytest.fixture(scope="module")
def files(net, tmp_path_factory) -> dict[str, tuple[TfliteGraph, Exported, np.ndarray]]:
    """precision -> graph, entry, and the file's outputs for `images`."""
    folder = tmp_path_factory.mktemp("prelu")
    exports = exported(net, folder, images(), "float32", "int8", formats=("tflite",))
    return {
        file.precision: (
            TfliteGraph(folder / file.path),
            file,
            tflite_runner(folder / file.path, ("logits",))(images())[0],
        )
        for file in exports
    }


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_weights_stand_in_the_file_once(files, net, precision):
    graph, file, _ = files[precision]
    weighted = [op for op in graph.operators if graph.op_name(op) in WEIGHTED]
    assert len(weighted) == 4  # as many as the network has
    kernels = sum(module.weight.numel() for module in net.modules() if hasattr(module, "stride"))
    kernels += net.hidden.weight.numel() + net.head.weight.numel()
    slopes = 2 * CHANNELS + HIDDEN
    bytes_each = 4 if precision == "float32" else 1
    assert file.weight_bytes[precision] < 1.05 * bytes_each * (kernels + slopes) + 200


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_slopes_are_not_spread_over_the_plane(files, precision):
    graph, _, _ = files[precision]
    factors = [
        int(np.prod(graph.tensors[int(index)].shape))
        for op in graph.operators
        if graph.op_name(op) == "MUL"
        for index in op.inputs
        if graph.is_constant(int(index))
    ]
    assert factors and max(factors) == HIDDEN


def test_files_compute_what_torch_does(files, net):
    with torch.no_grad():
        expected = net(torch.from_numpy(images())).numpy()
    scale = np.abs(expected).max()
    assert np.abs(files["float32"][2] - expected).max() <= 1e-5 * scale
    assert np.abs(files["int8"][2] - expected).max() <= 0.06 * scale
    assert files["int8"][1].float_layers == ()


def test_the_model_is_left_alone_and_shares_its_weights(net):
    before = copy.deepcopy(net.state_dict())
    ready = with_prelus_on_planes(net)
    assert ready is not net and type(net.vector) is nn.PReLU
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())
    assert ready.hidden.weight is net.hidden.weight
    x = torch.from_numpy(images())
    torch.testing.assert_close(ready(x), net(x), rtol=0, atol=0)
    plain = nn.Sequential(nn.Linear(2, 2))
    assert with_prelus_on_planes(plain) is plain
