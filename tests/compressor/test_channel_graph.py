"""Groups and fixed channels of small networks, worked out by hand."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from channel_nets import (
    Block,
    Call,
    TinyResNet,
    Wrapped,
    assert_exact,
    graph_of,
    groups_of,
    masked,
    random_keep,
    randomize,
    relative,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from compressor.cost import NetworkCosts, as_tensor
from compressor.graph import channel_graph, kept_indices
from compressor.graph.build import TraceError
from compressor.models import build_model
from compressor.models.layers import ChannelPad
from compressor.placeholders import Constant
from compressor.slim import check_keep, slim


def test_tiny_resnet() -> None:
    graph = graph_of(TinyResNet(width=4, hidden=5))
    assert groups_of(graph) == {
        ("stem", "block1.conv2", "block2.conv2"): 4,  # the residual stream
        ("block1.conv1",): 5,
        ("block2.conv1",): 5,
    }
    assert graph.class_count == 14
    assert {group.name for group in graph.groups if group.removable} == {
        "block1.conv1",
        "block2.conv1",
    }
    assert sorted(consumer.module for consumer in graph.consumers) == [
        "block1.conv1",
        "block1.conv2",
        "block2.conv1",
        "block2.conv2",
        "head",
        "stem",
    ]
    assert graph.fixed == {"output": "the network's output"}
    assert sorted(np.concatenate([group.classes for group in graph.groups])) == list(range(14))


def test_option_a_shortcut_couples_the_padded_channels() -> None:
    """16 channels in the first stage sit in the middle of 32, those in the middle of 64."""
    graph = graph_of(build_model("resnet20", 10), 32)
    streams = [group for group in graph.groups if len(group.producers) > 1]
    # 16 from the start, 16 that join with the second stage, 32 with the third
    assert [len(group.classes) for group in streams] == [16, 16, 32]
    by_module = {layer.module: layer.out_classes for layer in graph.layers}
    second, third = by_module["layer2.0.conv2"], by_module["layer3.2.conv2"]
    assert (second[8:24] == by_module["conv1"]).all()
    assert (third[16:48] == second).all()
    counts = {(count.module, count.attribute): count.classes for count in graph.counts}
    assert (counts["layer2.0.shortcut", "front"] == second[:8]).all()
    assert (counts["layer2.0.shortcut", "back"] == second[24:]).all()
    assert sum(group.removable for group in graph.groups) == 9  # one for each block


def test_padding_follows_the_keep_set() -> None:
    class Padded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(3, 4, 1)
            self.pad = ChannelPad(2, 2, 1)
            self.other = nn.Conv2d(3, 8, 1)
            self.last = nn.Conv2d(8, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.pad(self.first(x)) + self.other(x))

    model = Padded()
    graph = graph_of(model)
    (other,) = (layer.out_classes for layer in graph.layers if layer.module == "other")
    keep = graph.all_kept()
    keep[other[[0, 2, 3, 6, 7]]] = False
    slimmed = slim(model, graph, keep)
    assert (slimmed.pad.front, slimmed.pad.back) == (1, 0)
    assert_exact(Padded())


def test_depthwise_shares_its_input_channels() -> None:
    body = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.BatchNorm2d(8), nn.ReLU())
    graph = graph_of(Wrapped(body))
    assert groups_of(graph) == {("first",): 8}
    assert [consumer.module for consumer in graph.consumers] == ["first", "last"]
    assert_exact(Wrapped(body))
    doubled = nn.Sequential(nn.Conv2d(8, 16, 3, padding=1, groups=8), nn.BatchNorm2d(16))
    assert groups_of(graph_of(Wrapped(doubled, after=16))) == {("first",): 8}
    assert_exact(Wrapped(doubled, after=16))


def test_grouped_convolution_ties_partners() -> None:
    graph = graph_of(Wrapped(nn.Conv2d(8, 12, 3, padding=1, groups=4), after=12))
    assert groups_of(graph) == {("first",): 2, ("body",): 3}
    layers = {layer.module: layer for layer in graph.layers}
    assert layers["first"].out_classes.reshape(4, 2).tolist() == [[0, 1]] * 4
    assert len(set(layers["body"].out_classes.reshape(4, 3)[:, 1].tolist())) == 1
    assert [group.multiplicity for group in graph.groups] == [4, 4]
    assert_exact(Wrapped(nn.Conv2d(8, 12, 3, padding=1, groups=4), after=12))


class Gate(nn.Module):
    def __init__(self, width: int, gates: int) -> None:
        super().__init__()
        self.down = nn.Conv2d(width, 4, 1)
        self.up = nn.Conv2d(4, gates, 1)

    def forward(self, x: Tensor) -> Tensor:
        s = F.adaptive_avg_pool2d(x, 1)
        return x * torch.sigmoid(self.up(F.relu(self.down(s))))


def test_gate_of_one_channel_does_not_tie_everything() -> None:
    graph = graph_of(Wrapped(Gate(8, gates=1)))
    assert groups_of(graph) == {("first",): 8, ("body.down",): 4}
    assert_exact(Wrapped(Gate(8, gates=1)))


def test_gate_per_channel_follows_its_channels() -> None:
    graph = graph_of(Wrapped(Gate(8, gates=8)))
    assert groups_of(graph) == {("first", "body.up"): 8, ("body.down",): 4}
    assert_exact(Wrapped(Gate(8, gates=8)))


def shuffle(x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    return x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, -1, h, w)


@pytest.mark.parametrize("body", [Call(shuffle), nn.ChannelShuffle(2)])
def test_channel_shuffle_ties_partners(body: nn.Module) -> None:
    graph = graph_of(Wrapped(body))
    assert groups_of(graph) == {("first",): 4}
    first, last = graph.layers[0].out_classes, graph.layers[-1].in_classes
    assert first.tolist() == [0, 1, 2, 3, 0, 1, 2, 3]
    assert last.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert_exact(Wrapped(body))


def test_chunk_keeps_parts_equally_wide() -> None:
    def swapped(x: Tensor) -> Tensor:
        a, b = x.chunk(2, dim=1)
        return torch.cat((b, torch.relu(a)), dim=1)

    graph = graph_of(Wrapped(Call(swapped)))
    assert groups_of(graph) == {("first",): 4}
    assert graph.fixed == {"output": "the network's output"}
    assert_exact(Wrapped(Call(swapped)))


class Dense(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(8, 3, 1), nn.Conv2d(8, 5, 1)
        self.norm = nn.BatchNorm2d(16)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(torch.cat([x, self.left(x), self.right(x)], 1))


def test_concatenation_keeps_groups_apart() -> None:
    graph = graph_of(Wrapped(Dense(), after=16))
    assert groups_of(graph) == {("first",): 8, ("body.left",): 3, ("body.right",): 5}
    expected = np.concatenate([layer.out_classes for layer in graph.layers[:3]])
    assert (graph.layers[-1].in_classes == expected).all()
    assert_exact(Wrapped(Dense(), after=16))


def _with_ones(x: Tensor) -> Tensor:
    changed = x.clone()
    changed[:, :, 0] = 1.0
    return changed


@pytest.mark.parametrize(
    "parts",
    [
        lambda x: x.chunk(2, 1),
        lambda x: torch.chunk(x, chunks=2, dim=1),
        lambda x: x.split(x.shape[1] // 2, 1),
        lambda x: torch.split(x, split_size_or_sections=x.shape[1] // 2, dim=1),
        lambda x: torch.tensor_split(x, 2, dim=1),
    ],
)
def test_concatenation_of_a_split(parts: Callable[[Tensor], Sequence[Tensor]]) -> None:
    body = Call(lambda x: torch.cat(tuple(parts(x)), 1))
    graph = graph_of(Wrapped(body))
    assert graph.fixed.keys() == {"output"}
    assert groups_of(graph) == {("first",): 4}  # partners, for such parts are equal
    assert_exact(Wrapped(body))


# operator -> what is done with it, and the reason that the graph gives
FIXING = {
    "cumsum": (lambda x: torch.cumsum(x, dim=1), "it reduces over channels"),
    "view": (
        lambda x: x.view(-1, 4, 2, 8, 8).flatten(1, 2),
        "a width is written in the code of a reshape",
    ),
    "getitem": (lambda x: torch.cat((x[:, :3], x[:, 3:]), 1), "channels are picked by index"),
    "split": (
        lambda x: x.split([3, 5], dim=1)[1],
        "a width is written in the code of a split",
    ),
    "pad": (
        lambda x: F.pad(x, (0, 0, 0, 0, 0, 0, 0, 0))[:, 0:] + F.pad(x, (0, 0, 0, 0, 1, -1)),
        "padding of channels is written in the code",
    ),
    "softmax": (lambda x: x.softmax(1), "it reduces over channels"),
    "normalize": (lambda x: F.normalize(x, 2, 1), "it normalizes over channels"),
    "normalize by default": (lambda x: F.normalize(x), "it normalizes over channels"),
    "expand": (
        lambda x: x + x.mean((2, 3), keepdim=True).expand(-1, 8, -1, -1),
        "a width is written in the code of a expand",
    ),
    "mean": (lambda x: x - x.mean(), "it reduces over all channels"),
    "norm": (lambda x: x / (1 + x.norm(2, 1, keepdim=True)), "it reduces over channels"),
    "unbind": (lambda x: torch.stack(x.unbind(1), 1), "channels are picked by index"),
    "setitem": (_with_ones, "a number is written into channels"),
    "max_pool1d": (
        lambda x: x + F.max_pool1d(x.permute(0, 2, 3, 1).flatten(1, 2), 2).mean(),
        "it pools over channels",
    ),
    "sub": (
        lambda x: x + x.select(3, x.shape[1] - 1).unsqueeze(3),
        "a number of channels is used as an index",
    ),
    "size": (
        lambda x: x if x.shape[1] > 4 else -x,
        "the code compares a number of channels with another number",
    ),
    "fft_fft2": (lambda x: torch.fft.fft2(x).real, "operator 'fft_fft2' is not understood"),
}


@pytest.mark.parametrize("case", FIXING)
def test_what_is_fixed_is_named(case: str) -> None:
    function, reason = FIXING[case]
    graph = graph_of(Wrapped(Call(function), after=5 if case == "split" else 8))
    assert graph.fixed[f"body.{case.split()[0]}"] == reason
    assert graph.class_count == 0


def test_fixed_operator_leaves_the_rest_free() -> None:
    norm = nn.LayerNorm((8, 8, 8))
    body = nn.Sequential(norm, nn.ReLU(), nn.Conv2d(8, 6, 1), nn.ReLU())
    graph = graph_of(Wrapped(body, after=6))
    assert groups_of(graph) == {("body.2",): 6}
    assert "body.0" in graph.fixed
    assert_exact(Wrapped(body, after=6))


@pytest.mark.parametrize(
    "function",
    [
        lambda x: F.normalize(x, dim=2),
        lambda x: x.softmax(dim=-1),
        lambda x: x.flatten(2).unsqueeze(-1),
        lambda x: x + x.mean((2, 3), keepdim=True),
        lambda x: x + x.norm(1, (2, 3), keepdim=True),
        lambda x: x + torch.linalg.vector_norm(x, 1, (2, 3), keepdim=True),
        lambda x: x + torch.linalg.norm(x, 2, 3, keepdim=True),
        lambda x: x.mean(3, keepdim=True).expand(-1, -1, -1, 8),
        lambda x: x + x.mean(3, keepdim=True).squeeze(3).unsqueeze(3),
        lambda x: x * x.amax((2, 3)).view(x.size(0), x.size(1), 1, 1),
        lambda x: F.interpolate(x, scale_factor=2.0).permute(0, 1, 3, 2),
        lambda x: torch.stack(tensors=(x, x.relu()), dim=-1).sum(-1),
        lambda x: torch.stack((x, x.relu()), 2).sum(dim=2),
        lambda x: torch.cat((x, x.relu()), axis=2),
        lambda x: torch.concat(tensors=(x, x.relu()), dim=3),
        lambda x: x.roll(1, 2).roll(shifts=(1, 1), dims=(2, 3)),
        lambda x: x.narrow(2, 1, 4).narrow(dim=3, start=0, length=4),
        lambda x: x.select(dim=2, index=0).unsqueeze(2),
        lambda x: x.index_select(3, torch.tensor([0, 2])),
        lambda x: x.unbind(2)[1].unsqueeze(2),
        lambda x: x.flatten(2).unflatten(2, (8, 8)),
        lambda x: x.flatten(2).unflatten(dim=-1, sizes=(4, 16)),
        lambda x: x.reshape(shape=(x.shape[0], x.shape[1], 64, 1)),
        lambda x: x.view((x.shape[0], -1, 64, 1)),
        lambda x: F.pad(F.pad(x, (1, 1, 1, 1)), pad=(1, 1)),
        lambda x: torch.chunk(x.chunk(2, 2)[0], chunks=2, dim=3)[1],
        lambda x: x.split(split_size=4, dim=3)[1],
        lambda x: x[..., 1:5][:, ..., 0:4],
        lambda x: x[:, None, :, 2:][:, 0] + x[:, :, None, ..., :6, :].squeeze(2),
        lambda x: x[:, :, ::2, ::2],
    ],
)
def test_operators_that_leave_channels_apart(function) -> None:
    graph = graph_of(Wrapped(Call(function)))
    assert groups_of(graph) == {("first",): 8}
    assert_exact(Wrapped(Call(function)))


class Shared(nn.Module):
    """One convolution applied twice, so its inputs and outputs are the same channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 6, 3, padding=1)
        self.head = nn.Conv2d(6, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.conv(F.relu(self.conv(self.stem(x))))))


def test_shared_module() -> None:
    graph = graph_of(Shared())
    assert groups_of(graph) == {("stem", "conv"): 6}
    assert_exact(Shared())
    once, twice = 6 * 6 * 9 * 64, 2 * 6 * 6 * 9 * 64
    costs = NetworkCosts(graph)
    others = (3 * 6 + 6 * 2) * 64
    assert float(costs.macs(as_tensor(graph.all_kept()))) == others + twice != others + once


class Scaled(nn.Module):
    """Free parameters: a layer scale and a bias added in forward."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.randn(width, 1, 1))
        self.shift = nn.Parameter(torch.randn(1, width, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale + self.shift


def test_free_parameters_are_cut() -> None:
    model = Wrapped(Scaled())
    graph = graph_of(model)
    keep = graph.all_kept()
    keep[[1, 4]] = False
    slimmed = slim(model, graph, keep)
    assert slimmed.body.scale.shape == (6, 1, 1)
    assert slimmed.body.shift.shape == (1, 6, 1, 1)
    assert_exact(Wrapped(Scaled()))


class Odd(nn.Module):
    """A residual block whose branch holds something that can't work on one channel."""

    def __init__(self, inner: nn.Module, out: int = 8, last: nn.Module | None = None) -> None:
        super().__init__()
        self.up, self.inner = nn.Conv2d(6, 8, 1), inner
        self.down = last if last is not None else nn.Conv2d(out, 6, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.inner(self.up(x))) + x


class Parallel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(8, 4, 1), nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat((self.a(x), self.b(x)), 1)


class Inner(nn.Module):
    """A residual block inside the branch."""

    def __init__(self) -> None:
        super().__init__()
        self.block = Block(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x)


def gate_with_norm() -> nn.Module:
    gate = Gate(8, 8)
    gate.down = nn.Sequential(nn.Conv2d(8, 4, 1, bias=False), nn.BatchNorm2d(4))
    return gate


@pytest.mark.parametrize(
    "inner",
    [
        nn.Identity(),
        nn.Sequential(nn.BatchNorm2d(8), nn.ReLU(inplace=True)),
        nn.Conv2d(8, 8, 3, padding=1, groups=8),
        nn.Conv2d(8, 8, 3, padding="same", groups=8),
        nn.Conv2d(8, 8, 2, padding="same", groups=8),
        nn.ChannelShuffle(2),
        Call(shuffle),
        Call(lambda x: torch.cat((x.chunk(2, 1)[1], x.chunk(2, 1)[0]), 1)),
        Parallel(),
        Scaled(),
        Inner(),
        Gate(8, 8),
        nn.ConvTranspose2d(8, 8, 3, padding=1),
    ],
)
def test_empty_branches(inner: nn.Module) -> None:
    """Whatever may be emptied is emptied, in both orders of the addition."""
    model = Wrapped(Odd(inner), width=6)
    assert_exact(model, seeds=6, share=0.4)


def test_a_network_with_an_emptied_branch_is_cut_again() -> None:
    """What is left of the branch, a constant per channel, follows the channels that it adds to."""
    model = randomize(TinyResNet(width=6, hidden=5)).eval()
    graph = graph_of(model)
    keep = graph.all_kept()
    (branch,) = (group for group in graph.groups if group.producers == ("block1.conv1",))
    keep[branch.classes] = False
    slimmed = slim(model, graph, keep)
    assert sum(isinstance(module, Constant) for module in slimmed.modules()) == 1
    assert groups_of(graph_of(slimmed))[("block2.conv1",)] == 5
    assert_exact(slimmed)


def test_gate_with_batch_norm_vanishes_with_its_branch() -> None:
    model = randomize(Wrapped(Odd(gate_with_norm()), width=6)).double().eval()
    x = torch.randn(3, 3, 8, 8).double()
    graph = channel_graph(model, x[:1])
    keep = graph.all_kept()
    emptied = [group for group in graph.groups if group.removable]
    assert len(emptied) == 1
    keep[emptied[0].classes] = False
    slimmed = slim(model, graph, keep)
    with torch.no_grad():
        assert relative(slimmed(x), masked(model, graph, keep, x)) <= 1e-9
    names = {type(module).__name__ for module in slimmed.modules()}
    assert {"Nothing", "Constant"} <= names
    assert sum(isinstance(module, nn.Conv2d) for module in slimmed.modules()) == 2


class Mlp(nn.Module):
    """Linear layers with channels last, added with the branch first."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(6, 12), nn.Linear(12, 6)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)  # (N, C, H, W) -> (N, HW, C)
        tokens = self.down(F.gelu(self.up(tokens))) + tokens
        return tokens.transpose(1, 2).unsqueeze(-1)


def test_linear_branch_with_channels_last() -> None:
    graph = graph_of(Wrapped(Mlp(), width=6))
    assert groups_of(graph) == {("first", "body.down"): 6, ("body.up",): 12}
    assert_exact(Wrapped(Mlp(), width=6))


class Broadcast(nn.Module):
    """The other operand is smaller than the branch: the branch gives the sum its size."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down, self.side = nn.Conv2d(6, 8, 1), nn.Conv2d(8, 6, 1), nn.Conv2d(6, 6, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(self.side(x), 1) + self.down(F.relu(self.up(x)))


def test_branch_that_gives_the_sum_its_size_stays() -> None:
    graph = graph_of(Wrapped(Broadcast(), width=6))
    assert not any(group.removable for group in graph.groups)
    assert_exact(Wrapped(Broadcast(), width=6))


def test_model_is_left_as_it_was() -> None:
    torch.manual_seed(0)
    model = randomize(TinyResNet())
    model.train()
    model.block1.bn1.eval()  # a frozen batch norm
    modes = [module.training for module in model.modules()]
    before = copy.deepcopy(model.state_dict())
    graph = graph_of(model)
    keep = random_keep(graph, 0, empty_every=1)
    slim(model, graph, keep)
    assert [module.training for module in model.modules()] == modes
    assert not any(module._forward_pre_hooks for module in model.modules())
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_slim_refuses_what_would_be_empty() -> None:
    graph = graph_of(TinyResNet())
    keep = graph.all_kept()
    keep[graph.groups[0].classes] = False
    with pytest.raises(ValueError, match="no channel is left in group 'stem'"):
        check_keep(graph, keep)
    with pytest.raises(ValueError, match="14 classes"):
        check_keep(graph, keep[:-1])


def test_network_that_fails_is_named() -> None:
    with pytest.raises(TraceError, match=r"TinyResNet can't be run on .*\(1, 5, 8, 8\)"):
        channel_graph(TinyResNet(), torch.randn(1, 5, 8, 8))


@pytest.mark.parametrize(
    ("classes", "expected"), [([0, 1, 2], [0, 2]), ([-1, 1, -1], [0, 2]), ([2, 2, 1], [0, 1])]
)
def test_kept_indices(classes: list[int], expected: list[int]) -> None:
    keep = np.array([True, False, True])
    assert kept_indices(np.array(classes), keep).tolist() == expected


class RandomNet(nn.Module):
    """A stack of blocks drawn by hypothesis."""

    def __init__(self, kinds: list[str], widths: list[int]) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, widths[0], 3, padding=1), nn.BatchNorm2d(widths[0]))
        blocks: list[nn.Module] = []
        now = widths[0]
        for kind, width in zip(kinds, widths[1:], strict=True):
            if kind == "plain":
                blocks.append(
                    nn.Sequential(nn.Conv2d(now, width, 1), nn.BatchNorm2d(width), nn.ReLU())
                )
                now = width
            elif kind == "residual":
                blocks.append(Block(now, width))
            elif kind == "gated":
                blocks.append(Gate(now, now))
            elif kind == "depthwise":
                blocks.append(nn.Conv2d(now, now, 3, padding=1, groups=now))
            else:
                blocks.append(Grown(now, width))
                now += width
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(now, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.stem(x)).mean((2, 3)))


class Grown(nn.Module):
    def __init__(self, now: int, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(now, width, 1)
        self.norm = nn.BatchNorm2d(now + width)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(torch.cat((x, self.conv(x)), 1)))


@settings(max_examples=40)
@given(
    blocks=st.lists(
        st.tuples(
            st.sampled_from(["plain", "residual", "gated", "depthwise", "dense"]),
            st.integers(1, 6),
        ),
        max_size=5,
    ),
    stem=st.integers(1, 6),
    share=st.floats(0.1, 0.9),
    empty_every=st.integers(0, 2),
    seed=st.integers(0, 2**16),
)
def test_random_networks_are_exact(blocks, stem, share, empty_every, seed) -> None:
    torch.manual_seed(seed)
    net = RandomNet([kind for kind, _ in blocks], [stem, *(width for _, width in blocks)])
    model = randomize(net, seed).double().eval()
    graph = channel_graph(model, torch.randn(1, 3, 5, 5).double())
    keep = random_keep(graph, seed, share=share, empty_every=empty_every)
    x = torch.randn(2, 3, 5, 5).double()
    with torch.no_grad():
        expected = masked(model, graph, keep, x)
        found = slim(model, graph, keep)(x)
    assert float((found - expected).abs().max()) <= 1e-9 * float(expected.abs().max())
