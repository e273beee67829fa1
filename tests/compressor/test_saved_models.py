"""Saved networks: bit for bit, without pickle, and damage is the user's mistake."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from channel_nets import random_keep, randomize
from safetensors.torch import load_file, save_file
from torch import nn

from compressor.errors import InputError
from compressor.graph import channel_graph
from compressor.models import build_model
from compressor.placeholders import Constant, Nothing
from compressor.saved import DESCRIPTION_FILE, WEIGHTS_FILE, load_model, save_model
from compressor.slim import slim


def slimmed(name: str, side: int, empty_every: int = 2, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    model = randomize(build_model(name, 10)).eval()
    graph = channel_graph(model, torch.randn(1, 3, side, side))
    return slim(model, graph, random_keep(graph, seed, empty_every=empty_every))


def assert_round_trip(model: nn.Module, name: str, side: int, folder: Path) -> None:
    save_model(model, name, 10, folder)
    loaded = load_model(folder)
    assert not loaded.training
    x = torch.randn(2, 3, side, side)
    model.eval()
    with torch.no_grad():
        assert torch.equal(loaded(x), model(x))
    assert {k: v.shape for k, v in loaded.state_dict().items()} == {
        k: v.shape for k, v in model.state_dict().items()
    }
    assert repr(loaded) == repr(model)
    loaded.train()(x).sum().backward()


@pytest.mark.parametrize(
    ("name", "side"),
    [
        ("resnet20", 32),  # padded shortcuts
        ("mobilenet_v3_small", 64),  # gates, depthwise
        ("shufflenet_v2_x1_0", 64),
        ("resnext50_32x4d", 64),  # groups
    ],
)
def test_round_trip(name: str, side: int, tmp_path: Path) -> None:
    assert_round_trip(slimmed(name, side), name, side, tmp_path)


def test_emptied_branches_are_described(tmp_path: Path) -> None:
    model = slimmed("resnet20", 32, empty_every=1)
    kinds = [type(module) for module in model.modules()]
    assert kinds.count(Constant) == kinds.count(Nothing) == 9
    assert_round_trip(model, "resnet20", 32, tmp_path)
    edits = json.loads((tmp_path / DESCRIPTION_FILE).read_text())["edits"]
    assert edits["layer1.0.conv1"]["replaced_by"] == "Nothing"
    assert edits["layer1.0.conv2"]["replaced_by"] == "Constant"
    assert edits["layer1.0.bn2"] == {"replaced_by": "Identity"}


class Gains(nn.Module):
    """Fixed gains per channel and a table, which no state dict holds."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.head = nn.Linear(8, num_classes)
        self.register_buffer("gains", torch.linspace(0.5, 1.5, 8)[:, None, None], persistent=False)
        self.register_buffer("table", torch.arange(4.0), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head((self.conv(x).relu() * self.gains).mean((2, 3)) + self.table.sum())


def test_cut_buffers_that_no_state_dict_holds(tmp_path: Path) -> None:
    name = f"{__name__}:Gains"
    model = slimmed(name, 8)
    assert len(model.gains) < 8
    assert_round_trip(model, name, 8, tmp_path)
    # What isn't cut comes from the architecture.
    assert set(load_file(tmp_path / WEIGHTS_FILE)) == {*model.state_dict(), "gains"}


def test_unslimmed_network_needs_no_edits(tmp_path: Path) -> None:
    assert_round_trip(build_model("resnet20", 10), "resnet20", 32, tmp_path)
    assert json.loads((tmp_path / DESCRIPTION_FILE).read_text())["edits"] == {}


def test_both_files_can_be_read_by_whom_the_umask_lets(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        save_model(build_model("resnet20", 10), "resnet20", 10, tmp_path)
    finally:
        os.umask(before)
    modes = {oct(path.stat().st_mode & 0o777) for path in tmp_path.iterdir()}
    assert modes == {"0o640"}


def test_slimmed_twice(tmp_path: Path) -> None:
    once = slimmed("resnet20", 32, empty_every=3)
    save_model(once, "resnet20", 10, tmp_path / "once")
    again = load_model(tmp_path / "once")
    graph = channel_graph(again, torch.randn(1, 3, 32, 32))
    twice = slim(again, graph, random_keep(graph, 5, empty_every=2))
    assert sum(p.numel() for p in twice.parameters()) < sum(p.numel() for p in once.parameters())
    assert_round_trip(twice, "resnet20", 32, tmp_path / "twice")


def test_training_settings_survive(tmp_path: Path) -> None:
    model = slimmed("resnet20", 32)
    value = next(module for module in model.modules() if isinstance(module, Constant)).value
    assert value.requires_grad
    save_model(model, "resnet20", 10, tmp_path)
    assert all(p.requires_grad for p in load_model(tmp_path).parameters())


def test_files_hold_no_pickle(tmp_path: Path) -> None:
    save_model(slimmed("resnet20", 32), "resnet20", 10, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [DESCRIPTION_FILE, WEIGHTS_FILE]
    header = int.from_bytes((tmp_path / WEIGHTS_FILE).read_bytes()[:8], "little")
    json.loads((tmp_path / WEIGHTS_FILE).read_bytes()[8 : 8 + header])  # safetensors: JSON, bytes


def _edit(folder: Path, change) -> None:
    path = folder / DESCRIPTION_FILE
    description = json.loads(path.read_text())
    change(description)
    path.write_text(json.dumps(description))


def _weights(folder: Path, change) -> None:
    weights = load_file(folder / WEIGHTS_FILE)
    change(weights)
    save_file(weights, folder / WEIGHTS_FILE)


DAMAGE = {
    "no description": lambda f: (f / DESCRIPTION_FILE).unlink(),
    "no weights": lambda f: (f / WEIGHTS_FILE).unlink(),
    "truncated weights": lambda f: (f / WEIGHTS_FILE).write_bytes(
        (f / WEIGHTS_FILE).read_bytes()[:-100]
    ),
    "weights are text": lambda f: (f / WEIGHTS_FILE).write_text("hello"),
    "not JSON": lambda f: (f / DESCRIPTION_FILE).write_text("{"),
    "another JSON": lambda f: (f / DESCRIPTION_FILE).write_text("[1, 2]"),
    "no edits": lambda f: _edit(f, lambda d: d.pop("edits")),
    "newer version": lambda f: _edit(f, lambda d: d.update(schema_version=99)),
    "unknown architecture": lambda f: _edit(f, lambda d: d.update(architecture="resnet2000")),
    "another architecture": lambda f: _edit(f, lambda d: d.update(architecture="resnet32")),
    "unknown module": lambda f: _edit(f, lambda d: d["edits"].update(nowhere={"groups": 1})),
    "attribute that is no width": lambda f: _edit(
        f, lambda d: d["edits"].update(conv1={"forward": 1})
    ),
    "width that is no number": lambda f: _edit(
        f, lambda d: d["edits"].update(conv1={"out_channels": "many"})
    ),
    "damaged window": lambda f: _edit(
        f, lambda d: d["edits"]["layer1.0.conv1"].update(window={"kernel": [3, 3]})
    ),
    "width unlike the weight": lambda f: _edit(
        f, lambda d: d["edits"].update(conv1={"out_channels": 3})
    ),
    "tensor missing": lambda f: _weights(f, lambda w: w.pop("linear.bias")),
    "tensor of another shape": lambda f: _weights(
        f, lambda w: w.update({"linear.weight": torch.zeros(10, 3)})
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_an_input_error(damage: str, tmp_path: Path) -> None:
    save_model(slimmed("resnet20", 32, empty_every=1), "resnet20", 10, tmp_path)
    DAMAGE[damage](tmp_path)
    with pytest.raises(InputError) as caught:
        load_model(tmp_path)
    assert "\n" not in str(caught.value)


def test_module_under_two_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights that share memory are saved under both names."""
    (tmp_path / "two_names_factory.py").write_text(
        "from torch import nn\n"
        "def make(num_classes):\n"
        "    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, num_classes, 1))\n"
        "    net.again = net[0]\n"
        "    net.forward = lambda x: net[2](net[1](net[0](x))).mean((2, 3))\n"
        "    return net\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    model = build_model("two_names_factory:make", 3)
    save_model(model, "two_names_factory:make", 3, tmp_path / "saved")
    x = torch.randn(1, 3, 4, 4)
    loaded = load_model(tmp_path / "saved")
    np.testing.assert_array_equal(loaded(x).detach(), model(x).detach())
