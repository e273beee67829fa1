"""Branches for training are merged before export, and only where nothing changes."""

from __future__ import annotations

import copy

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from exporting import exported
from torch import Tensor, nn

from exporters.merge import merge_branches
from exporters.prepare import deployable

SHAPE = (3, 8, 8)


class Branches(nn.Module):
    """3x3, 1x1 and identity, as RepVGG trains; `groups` is read by merging alone."""

    def __init__(self, channels: int, groups: int = 1) -> None:
        super().__init__()
        self.groups, self.merged = groups, None
        self.wide = nn.Conv2d(channels, channels, 3, padding=1, groups=groups)
        self.narrow = nn.Conv2d(channels, channels, 1, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        if self.merged is not None:
            return F.relu(self.merged(x))
        return F.relu(self.wide(x) + self.narrow(x) + x)

    def reparameterize(self) -> None:
        if self.merged is not None:
            return
        width, inputs = self.wide.weight.shape[:2]
        kernel = self.wide.weight + F.pad(self.narrow.weight, [1, 1, 1, 1])
        for channel in range(width):
            kernel[channel, channel % (width // self.groups), 1, 1] += 1
        conv = nn.Conv2d(inputs * self.groups, width, 3, padding=1, groups=self.groups)
        conv.weight.data, conv.bias.data = kernel, self.wide.bias + self.narrow.bias
        self.merged = conv
        del self.wide, self.narrow


class Scaled(nn.Module):
    """Merges into another module, which takes its place."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.factor = nn.Conv2d(4, 4, 1), nn.Parameter(torch.tensor(3.0))

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) * self.factor

    def fuse(self) -> nn.Conv2d:
        conv = nn.Conv2d(4, 4, 1)
        conv.weight.data = self.inner.weight * self.factor
        conv.bias.data = self.inner.bias * self.factor
        return conv


class Wrong(Branches):
    """Forgets a branch."""

    def reparameterize(self) -> None:
        self.merged = self.wide
        del self.narrow


class Failing(Branches):
    def reparameterize(self) -> None:
        raise KeyError("conv9")


class WithArgument(Branches):
    def reparameterize(self, inplace: bool) -> None:  # type: ignore[override]
        raise AssertionError("never called")


def network(block: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), block, *head)
    return model.eval()


def convs(model: nn.Module) -> int:
    return sum(isinstance(module, nn.Conv2d) for module in model.modules())


def answers(model: nn.Module) -> Tensor:
    with torch.no_grad():
        return model(torch.randn(4, *SHAPE, generator=torch.Generator().manual_seed(1)))


@pytest.mark.parametrize("block", [Branches(4), Branches(4, groups=4), Scaled()])
def test_blocks_become_one_convolution(block: nn.Module) -> None:
    model, notices = network(block), []
    before = copy.deepcopy(model.state_dict())
    ready = deployable(model, SHAPE, notices.append)
    assert convs(ready) == 2 and notices == []
    torch.testing.assert_close(answers(ready), answers(model), rtol=1e-4, atol=1e-5)
    assert not any(parameter.requires_grad for parameter in ready.parameters())
    after = model.state_dict()  # the caller's model
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_numbers_of_the_unslimmed_network_do_not_matter() -> None:
    block = Branches(4, groups=4)
    block.groups = 16  # what slimming leaves in an attribute that `forward` doesn't read
    model, notices = network(block), []
    ready = deployable(model, SHAPE, notices.append)
    assert convs(ready) == 2 and notices == []
    torch.testing.assert_close(answers(ready), answers(model), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("block", "reason"), [(Wrong(4), "its answer changes by"), (Failing(4), "KeyError: 'conv9'")]
)
def test_what_would_change_the_network_stays(block: nn.Module, reason: str) -> None:
    model, notices = network(block), []
    ready = deployable(model, SHAPE, notices.append)
    assert convs(ready) == 3
    assert len(notices) == 1
    assert notices[0].startswith("notice: 1 blocks can't be merged, '2' for one: ")
    assert reason in notices[0]
    torch.testing.assert_close(answers(ready), answers(model), rtol=1e-4, atol=1e-5)


def test_methods_with_arguments_are_left_alone() -> None:
    model, notices = network(WithArgument(4)), []
    assert convs(deployable(model, SHAPE, notices.append)) == 3
    assert notices == []


def test_blocks_inside_blocks_and_the_model_itself() -> None:
    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Conv2d(3, 4, 1), Branches(4), Scaled())

        def forward(self, x: Tensor) -> Tensor:
            return self.body(x)

        def fuse(self) -> nn.Module:
            return self.body  # its own blocks are merged next

    torch.manual_seed(0)
    model = Outer().eval().requires_grad_(False)
    expected = answers(model)
    merged = merge_branches(model, torch.randn(1, *SHAPE), print)
    assert type(merged) is nn.Sequential
    assert [type(part) for part in merged] == [nn.Conv2d, Branches, nn.Conv2d]
    assert convs(merged) == 3
    torch.testing.assert_close(answers(merged), expected, rtol=1e-4, atol=1e-5)


def test_the_exported_file_has_one_convolution(tmp_path) -> None:
    images = np.random.default_rng(0).standard_normal((4, *SHAPE)).astype(np.float32)
    (file,) = exported(network(Branches(4)), tmp_path, images, "float32", formats=("onnx",))
    nodes = [node.op_type for node in onnx.load(str(tmp_path / file.path)).graph.node]
    assert nodes.count("Conv") == 2 and "Add" not in nodes


@pytest.mark.parametrize(
    ("name", "before", "after"), [("mobileone_s0", 191, 43), ("repvgg_a0", 44, 22)]
)
def test_networks_of_timm(name: str, before: int, after: int) -> None:
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=5).eval().requires_grad_(False)
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.running_mean.normal_(0, 0.3)
            norm.running_var.uniform_(0.5, 1.5)
    notices: list[str] = []
    ready = deployable(model, (3, 32, 32), notices.append)
    assert (convs(model), convs(ready)) == (before, after) and notices == []
    x = torch.randn(2, 3, 32, 32)
    found, expected = ready(x), model(x)
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()
