"""The central invariant: masked and slimmed networks are the same function in eval mode."""

from __future__ import annotations

import copy
from functools import cache

import numpy as np
import pytest
import torch
from channel_nets import TinyResNet, masked, random_keep, randomize, relative
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from compressor.cost import NetworkCosts, as_tensor
from compressor.graph import ChannelGraph, Keep, channel_graph
from compressor.graph.channel_graph import FIXED_CLASS
from compressor.masks import ChannelMasks
from compressor.models import build_model
from compressor.slim import slim
from compressor.verify import SlimError, check_slim, mask_effect

# Name -> side of a small input that the network still takes.
SIZES = {
    "resnet20": 32,
    "resnet18": 32,
    "vgg16-decore": 32,
    "mobilenet_v3_small": 64,
    "squeezenet1_1": 64,
    "shufflenet_v2_x1_0": 64,
    "vgg16": 32,
    "torchvision:resnet18": 64,
    "resnet50": 64,
    "vgg16_bn": 32,
    "mobilenet_v2": 64,
    "efficientnet_b0": 64,
    "densenet121": 64,
    "googlenet": 64,
    "regnet_x_400mf": 64,
    "resnext50_32x4d": 64,
    "inception_v3": 96,
}


def narrow_classifier() -> nn.Module:
    """VGG's layers with 64 features for 4,096, which hold 119 of its 134 million weights."""
    hidden = [nn.Linear(512 * 7 * 7, 64), nn.ReLU(), nn.Dropout(), nn.Linear(64, 64), nn.ReLU()]
    return nn.Sequential(*hidden, nn.Dropout(), nn.Linear(64, 10))


@cache
def analysed(name: str) -> tuple[nn.Module, ChannelGraph]:
    torch.manual_seed(0)
    model = build_model(name, 10)
    if name == "vgg16_bn":
        model.classifier = narrow_classifier()
    model = randomize(model).eval()
    return model, channel_graph(model, torch.randn(1, 3, SIZES[name], SIZES[name]))


def macs(model: nn.Module, size: int) -> int:
    """Multiply-accumulates by PyTorch's own counter, which counts two operations for each."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.randn(1, 3, size, size))
    return counter.get_total_flops() // 2


@pytest.mark.parametrize("name", SIZES)
def test_slimmed_is_masked(name: str) -> None:
    model, graph = analysed(name)
    keep = random_keep(graph, seed=1)
    slimmed = slim(model, graph, keep)
    x = torch.randn(2, 3, SIZES[name], SIZES[name], generator=torch.Generator().manual_seed(2))

    expected = masked(model, graph, keep, x)
    with torch.no_grad():
        whole = model(x)
        assert relative(slimmed(x), expected) <= 1e-5
    assert relative(expected, whole) > 1e-3  # the keep set matters

    exact = copy.deepcopy(model).double()
    expected = masked(exact, graph, keep, x.double())
    with torch.no_grad():
        assert relative(slim(exact, graph, keep)(x.double()), expected) <= 1e-9

    # Parameters and MACs fall, and are what the cost functions say.
    before = sum(p.numel() for p in model.parameters())
    after = sum(p.numel() for p in slimmed.parameters())
    assert after < 0.7 * before
    costs = NetworkCosts(graph)
    assert macs(slimmed, SIZES[name]) == float(costs.macs(as_tensor(keep)))

    # The result trains.
    slimmed.train()(x).square().mean().backward()
    gradients = [p.grad for p in slimmed.parameters() if p.grad is not None]
    # What fed an emptied branch (a bottleneck's first conv) has no gradient any more.
    assert len(gradients) > 0.8 * len(list(slimmed.parameters()))
    assert all(bool(torch.isfinite(g).all()) for g in gradients)


@pytest.mark.parametrize("name", SIZES)
def test_macs_of_the_whole_network(name: str) -> None:
    model, graph = analysed(name)
    ours = float(NetworkCosts(graph).macs(as_tensor(graph.all_kept())))
    assert ours == macs(model, SIZES[name])


@pytest.mark.parametrize("name", ["resnet20", "mobilenet_v3_small", "resnext50_32x4d"])
@pytest.mark.parametrize("empty_every", [0, 1])
def test_other_keep_sets(name: str, empty_every: int) -> None:
    """No branch empty; every branch empty."""
    model, graph = analysed(name)
    keep = random_keep(graph, seed=5, share=0.2, empty_every=empty_every)
    x = torch.randn(2, 3, SIZES[name], SIZES[name])
    assert check_slim(model, graph, keep, slim(model, graph, keep), x) <= 1e-9
    assert mask_effect(model, graph, keep, x) > 1e-3


def test_every_channel_but_the_output_of_the_family_can_go() -> None:
    for name in ("resnet20", "vgg16-decore", "resnet18"):
        _, graph = analysed(name)
        fixed = {layer.module for layer in graph.layers if (layer.out_classes == FIXED_CLASS).any()}
        assert fixed == {graph.layers[-1].module}
        assert set(graph.fixed) == {"output"}


@pytest.fixture
def tiny() -> tuple[nn.Module, ChannelGraph, Keep, torch.Tensor]:
    torch.manual_seed(3)
    model = randomize(TinyResNet(width=6, hidden=8)).eval()
    graph = channel_graph(model, torch.randn(1, 3, 8, 8))
    keep = random_keep(graph, seed=4, empty_every=0)
    return model, graph, keep, torch.randn(2, 3, 8, 8)


def test_the_true_slim_passes(tiny) -> None:
    model, graph, keep, x = tiny
    assert check_slim(model, graph, keep, slim(model, graph, keep), x) <= 1e-9


def test_mask_before_batch_norm_is_caught(tiny) -> None:
    """Zeroing the convolution's output lets batch norm add its bias back."""
    model, graph, keep, x = tiny
    slimmed = slim(model, graph, keep)
    masks = ChannelMasks(model, graph)
    layer = next(entry for entry in graph.layers if entry.module == "block1.conv1")
    mask = torch.from_numpy(np.append(keep, True)[layer.out_classes]).to(x.dtype)
    wrong_keep = keep.copy()
    wrong_keep[layer.out_classes] = True  # this group is masked in the wrong place instead
    handle = model.block1.conv1.register_forward_hook(
        lambda module, inputs, output: output * mask[:, None, None]
    )
    with torch.no_grad(), masks:
        masks.set(torch.from_numpy(wrong_keep).to(x.dtype))
        wrong = model(x)
    handle.remove()
    with torch.no_grad():
        assert relative(slimmed(x), wrong) > 1e-3


@pytest.mark.parametrize(
    ("module", "tensor"),
    [("block1.bn1", "bias"), ("block1.conv2", "weight"), ("norm", "running_mean")],
)
def test_shifted_index_is_caught(tiny, module: str, tensor: str) -> None:
    """One kept index of one cut is off by one."""
    model, graph, keep, x = tiny
    slimmed = slim(model, graph, keep)
    cut = next(
        entry
        for entry in graph.slices
        if (entry.module, entry.tensor) == (module, tensor)
        and entry.axis == (1 if tensor == "weight" else 0)
    )
    other = int(np.flatnonzero(~keep[cut.classes])[0])
    line = getattr(model.get_submodule(module), tensor).detach().select(cut.axis, other)
    if tensor == "weight":  # the other axis is cut rightly
        rows = next(c for c in graph.slices if (c.module, c.tensor, c.axis) == (module, tensor, 0))
        line = line[torch.from_numpy(keep[rows.classes])]
    getattr(slimmed.get_submodule(module), tensor).data.select(cut.axis, 0).copy_(line)
    with pytest.raises(SlimError, match="differs from the masked one"):
        check_slim(model, graph, keep, slimmed, x)


def test_batch_norm_left_out_is_caught(tiny) -> None:
    """A graph without one batch norm's cuts: the first entries stay instead of the right ones."""
    model, graph, keep, x = tiny
    slimmed = slim(model, graph, keep)
    norm = slimmed.block2.bn1
    for name in ("weight", "bias", "running_mean", "running_var"):
        whole = getattr(model.block2.bn1, name).detach()
        getattr(norm, name).data = whole[: norm.num_features].clone()
    with pytest.raises(SlimError):
        check_slim(model, graph, keep, slimmed, x)


def test_nan_is_caught(tiny) -> None:
    model, graph, keep, x = tiny
    slimmed = slim(model, graph, keep)
    slimmed.head.bias.data[0] = float("nan")
    with pytest.raises(SlimError):
        check_slim(model, graph, keep, slimmed, x)
