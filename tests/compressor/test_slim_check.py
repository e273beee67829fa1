"""A cut that isn't the masked network is named after the first module that differs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from channel_nets import TinyResNet, masked, random_keep, randomize, relative
from torch import Tensor, nn

from compressor import verify
from compressor.graph import ChannelGraph, Keep, channel_graph
from compressor.slim import slim
from compressor.verify import SlimError, check_slim, mask_effect

Case = tuple[nn.Module, ChannelGraph, Keep, Tensor]


@pytest.fixture
def tiny() -> Case:
    torch.manual_seed(3)
    model = randomize(TinyResNet(width=6, hidden=8)).eval()
    graph = channel_graph(model, torch.randn(1, 3, 8, 8))
    keep = random_keep(graph, seed=4, empty_every=0)
    return model, graph, keep, torch.randn(2, 3, 8, 8)


def test_masks_that_do_nothing_have_no_effect(tiny: Case) -> None:
    model, graph, keep, x = tiny
    assert mask_effect(model, graph, graph.all_kept(), x) == 0
    with torch.no_grad():
        expected = relative(masked(model, graph, keep, x), model(x))
    assert mask_effect(model, graph, keep, x) == pytest.approx(expected)
    assert expected > 1e-3


@pytest.mark.parametrize("name", ["stem", "block1.bn1", "block1.conv2", "block2.conv1", "head"])
def test_the_first_module_that_differs_is_named(tiny: Case, name: str) -> None:
    model, graph, keep, x = tiny
    slimmed = slim(model, graph, keep)
    module = slimmed.get_submodule(name)
    module.weight.data *= 1.01
    with pytest.raises(SlimError, match=rf"differs .* first at '{name}'"):
        check_slim(model, graph, keep, slimmed, x)


@pytest.mark.parametrize("name", ["stem", "block1.bn1", "block2.conv1", "head"])
def test_networks_too_large_for_float64_are_compared_as_they_are(
    tiny: Case, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify, "WIDENED_BYTES", 0)
    monkeypatch.setattr(verify, "_double", None)  # nothing is widened
    model, graph, keep, x = tiny
    slimmed = slim(model, graph, keep).train()
    assert check_slim(model, graph, keep, slimmed, x) < verify.LARGE_TOLERANCE
    assert slimmed.training and slimmed.head.training
    slimmed.get_submodule(name).weight.data *= 1.1
    with pytest.raises(SlimError, match=rf"differs .* first at '{name}'"):
        check_slim(model, graph, keep, slimmed, x)


@pytest.mark.parametrize("kept", ["some", "all"])
def test_a_slimmed_network_has_weights_of_its_own(tiny: Case, kept: str) -> None:
    model, graph, keep, _ = tiny
    before = {name: value.clone() for name, value in model.state_dict().items()}
    slimmed = slim(model, graph, keep if kept == "some" else graph.all_kept())
    with torch.no_grad():
        for value in (*slimmed.parameters(), *slimmed.buffers()):
            value += 1
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_a_cut_that_does_not_fit_is_named(tiny: Case) -> None:
    model, graph, keep, x = tiny
    slimmed = slim(model, graph, keep)
    slimmed.block2.conv2 = nn.Conv2d(1, 1, 3)
    with pytest.raises(SlimError, match=r"fails with RuntimeError .* first at 'block2.conv2'"):
        check_slim(model, graph, keep, slimmed, x)


def test_nan_is_a_difference(tiny: Case) -> None:
    model, graph, keep, x = tiny
    slimmed = slim(model, graph, keep)
    slimmed.block1.bn2.bias.data[0] = float("nan")
    with pytest.raises(SlimError, match=r"differs .*by nan.* first at 'block1.bn2'"):
        check_slim(model, graph, keep, slimmed, x)


class InFloat32(nn.Module):
    """Code that falls back to float32 whatever the network's own dtype is."""

    def __init__(self) -> None:
        super().__init__()
        self.net = TinyResNet(width=6, hidden=8)

    def forward(self, x: Tensor) -> Tensor:
        y = self.net.norm(self.net.stem(x)).float()
        y = (y * y.sigmoid() / 3).to(x.dtype)
        return self.net.head(self.net.block2(self.net.block1(y)).mean((2, 3)))


def test_code_that_rounds_to_float32_is_no_false_alarm() -> None:
    torch.manual_seed(0)
    model = randomize(InFloat32()).eval()
    x = torch.randn(2, 3, 8, 8)
    graph = channel_graph(model, x[:1])
    for seed in range(3):
        keep = random_keep(graph, seed=seed)
        slimmed = slim(model, graph, keep)
        assert check_slim(model, graph, keep, slimmed, x) <= 1e-5


class Several(nn.Module):
    """Two answers in a dict, as detection and segmentation networks give them."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.side = TinyResNet(width=6, hidden=8), nn.Conv2d(6, 2, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor | list[Tensor]]:
        y = self.net.block1(self.net.norm(self.net.stem(x)))
        return {"mask": self.side(y), "all": [self.net.head(self.net.block2(y).mean((2, 3)))]}


def test_every_answer_is_compared() -> None:
    torch.manual_seed(0)
    model = randomize(Several()).eval()
    x = torch.randn(2, 3, 8, 8)
    graph = channel_graph(model, x[:1])
    assert {group.name for group in graph.groups} == {
        "net.stem",
        "net.block1.conv1",
        "net.block2.conv1",
    }
    keep = random_keep(graph, seed=1)
    slimmed = slim(model, graph, keep)
    assert check_slim(model, graph, keep, slimmed, x) <= 1e-9
    for name in ("side", "net.head"):
        wrong = slim(model, graph, keep)
        wrong.get_submodule(name).bias.data += 1
        with pytest.raises(SlimError, match=f"first at '{name}'"):
            check_slim(model, graph, keep, wrong, x)


def test_a_wrong_graph_is_found(tiny: Case) -> None:
    """One batch norm's cuts are another's: the graph itself is wrong, not the network."""
    model, graph, keep, x = tiny
    rolled = tuple(
        replace(cut, classes=np.roll(cut.classes, 1)) if cut.module == "block2.bn1" else cut
        for cut in graph.slices
    )
    wrong = replace(graph, slices=rolled)
    with pytest.raises(SlimError, match="first at 'block2.bn1'"):
        check_slim(model, wrong, keep, slim(model, wrong, keep), x)
