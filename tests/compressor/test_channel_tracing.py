"""Tracing copes: numbers that follow, branches on sizes, modules of other libraries."""

from __future__ import annotations

import math
from dataclasses import dataclass

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
    randomize,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from compressor.graph import channel_graph
from compressor.graph.channel_graph import FIXED_CLASS
from compressor.saved import load_model, save_model
from compressor.slim import slim


class Ghost(nn.Module):
    """Features that are made cheaply from others, cut to a width that an attribute holds."""

    def __init__(self, width: int = 8, out: int = 7) -> None:
        super().__init__()
        self.out = out
        self.cheap = nn.Conv2d(width, width, 3, padding=1, groups=width)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat((x, self.cheap(x)), 1)[:, : self.out]


class Mixed(nn.Module):
    """A kernel size for each part of the channels; the widths are in a list."""

    def __init__(self, widths: tuple[int, ...] = (3, 3, 2)) -> None:
        super().__init__()
        self.widths = list(widths)
        self.convs = nn.ModuleList(
            nn.Conv2d(w, w, 2 * i + 1, padding=i, groups=w) for i, w in enumerate(widths)
        )

    def forward(self, x: Tensor) -> Tensor:
        parts = torch.split(x, self.widths, dim=1)
        return torch.cat([conv(part) for conv, part in zip(self.convs, parts, strict=True)], 1)


class Res2(nn.Module):
    """Parts of one width, each added to the next (Res2Net)."""

    def __init__(self) -> None:
        super().__init__()
        self.width = 2
        self.convs = nn.ModuleList(nn.Conv2d(2, 2, 3, padding=1) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        parts = x.split(self.width, 1)
        outs = [parts[0]]
        for conv, part in zip(self.convs, parts[1:], strict=True):
            outs.append(F.relu(conv(part + outs[-1])))
        return torch.cat(outs, 1)


class HalfAttribute(nn.Module):
    """Cross stage partial: half of an attribute's channels go another way."""

    def __init__(self) -> None:
        super().__init__()
        self.width = 8
        self.conv = nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        a, b = x.split(self.width // 2, dim=1)
        return torch.cat((a, self.conv(b)), 1)


class Rest(nn.Module):
    """The first channels are worked on, the others pass."""

    def __init__(self) -> None:
        super().__init__()
        self.width, self.some = 8, 3
        self.conv = nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        some, rest = x.split([self.some, self.width - self.some], dim=1)
        return torch.cat((self.conv(some), rest), 1)


class Padded(nn.Module):
    """Branches on sizes, with arithmetic on them."""

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        pad = (math.ceil(width / 3) * 3 - width, math.ceil(height / 3) * 3 - height)
        if pad[0] > 0 or pad[1] > 0:
            x = F.pad(x, (0, pad[0], 0, pad[1]))
        assert isinstance(x, Tensor) and x.shape[0] < 100
        n, c, h, w = x.shape
        return x.view(n, c, h // 3, 3, w // 3, 3).mean((3, 5))


class Checked(nn.Module):
    """Asserts its width, as much code does."""

    def __init__(self) -> None:
        super().__init__()
        self.width = 8

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1] != self.width:
            raise ValueError("wrong width")
        return x * 2


class Written(nn.Module):
    """Collects its result in a fresh tensor."""

    def forward(self, x: Tensor) -> Tensor:
        out = x.new_zeros(x.shape[0], x.shape[1], 4, 4)
        out[:, :, 1:3, 1:3] = x[:, :, :2, :2]
        return out


FOLLOWING = {
    "ghost": (Ghost(), 7, {("first",): 7}),  # nobody reads the last one
    "mixed": (Mixed(), 8, None),
    "res2": (Res2(), 8, None),
    "half of an attribute": (HalfAttribute(), 8, None),
    "rest": (Rest(), 8, None),
    "padded": (Padded(), 8, {("first",): 8}),
    "checked": (Checked(), 8, {("first",): 8}),
    "half of a size": (Call(lambda x: x[:, : x.shape[1] // 2] * 2), 4, {("first",): 4}),
    "size of another": (Call(lambda x: (x + 1)[:, : x.size(1)]), 8, {("first",): 8}),
    "zeros": (Call(lambda x: torch.cat((x, torch.zeros_like(x)), 1)), 16, {("first",): 8}),
    "written": (Written(), 8, {("first",): 8}),
    "stack": (Call(lambda x: torch.stack((x, x.relu()), 1).sum(1)), 8, {("first",): 8}),
    "unbind": (Call(lambda x: sum(x.unbind(2)).unsqueeze(2)), 8, {("first",): 8}),
    "roll": (Call(lambda x: x.roll((1, 2), (2, 3))), 8, {("first",): 8}),
    "pixel shuffle": (nn.PixelShuffle(2), 2, {("first",): 2}),
    "pixel unshuffle": (nn.PixelUnshuffle(2), 32, {("first",): 8}),
    "dilated": (nn.Conv2d(8, 8, 3, padding=2, dilation=2, groups=8), 8, {("first",): 8}),
    "transposed": (nn.ConvTranspose2d(8, 6, 2, 2), 6, {("first",): 8, ("body",): 6}),
    "transposed depthwise": (nn.ConvTranspose2d(8, 16, 2, 2, groups=8), 16, {("first",): 8}),
    "prelu": (nn.PReLU(8), 8, {("first",): 8}),
}


@pytest.mark.parametrize("case", FOLLOWING)
def test_numbers_that_follow(case: str) -> None:
    body, after, groups = FOLLOWING[case]
    graph = graph_of(Wrapped(body, after=after))
    assert graph.fixed.keys() == {"output"}
    assert graph.class_count > 0
    if groups is not None:
        assert groups_of(graph) == groups
    assert_exact(Wrapped(body, after=after), seeds=3)


@settings(max_examples=25)
@given(
    widths=st.lists(st.integers(1, 4), min_size=2, max_size=4).map(tuple),
    seed=st.integers(0, 99),
    data=st.data(),
)
def test_attributes_follow_any_keep_set(widths, seed, data) -> None:
    torch.manual_seed(seed)
    out = data.draw(st.integers(sum(widths) // 2 + 1, 2 * sum(widths)))
    body = nn.Sequential(Mixed(widths), Ghost(sum(widths), out))
    assert_exact(Wrapped(body, width=sum(widths), after=out), seeds=2)


def test_attributes_are_set_and_the_network_itself_is_left_alone() -> None:
    model = Wrapped(nn.Sequential(Mixed(), Ghost()), after=7)
    graph = graph_of(model)
    assert type(model.body[0].widths[0]) is int and type(model.body[1].out) is int
    keep = graph.all_kept()
    first = graph.layers[0].out_classes
    keep[first[[0, 4, 5]]] = False
    slimmed = slim(model, graph, keep)
    assert slimmed.body[0].widths == [2, 1, 2]
    assert slimmed.body[1].out == 4
    assert (model.body[0].widths, model.body[1].out) == ([3, 3, 2], 7)


def follower(num_classes: int) -> nn.Module:
    """A network whose widths are in attributes, for `build_model`."""
    return Wrapped(nn.Sequential(Mixed(), Ghost(), nn.GroupNorm(1, 7)), after=7)


def test_attributes_are_saved(tmp_path) -> None:
    torch.manual_seed(0)
    model = follower(2).eval()
    graph = graph_of(model)
    keep = graph.all_kept()
    keep[graph.layers[0].out_classes[[1, 4]]] = False
    slimmed = slim(model, graph, keep)
    save_model(slimmed, "test_channel_tracing:follower", 2, tmp_path)
    x = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        assert torch.equal(load_model(tmp_path)(x), slimmed(x))


class TwoUses(nn.Module):
    """The attribute is a width, and the number of something else."""

    def __init__(self) -> None:
        super().__init__()
        self.width = 4

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat((x[:, : self.width], x[:, self.width :]), 1) / self.width


def test_an_attribute_with_two_meanings_is_left_alone() -> None:
    graph = graph_of(Wrapped(TwoUses()))
    assert graph.class_count == 4  # those that it doesn't count
    assert "'width' is used for something else" in graph.fixed["body"]
    assert_exact(Wrapped(TwoUses()))


def test_every_part_of_a_split_keeps_a_channel() -> None:
    """Each part is a group of its own: a layer that reads one part always has an input."""
    graph = graph_of(Wrapped(Mixed()))
    assert [len(group.classes) for group in graph.groups] == [3, 3, 2]


UNFOLLOWED = {
    "its own number": (Call(lambda x: x / x.shape[1]), "body.div"),
    "root": (Call(lambda x: x * x.shape[1] ** -0.5), "body.mul"),
    "turned to int": (Call(lambda x: x * int(x.shape[1])), "body.size"),
    "compared": (Call(lambda x: x * 2 if x.shape[1] > 4 else x), "body.size"),
    "unequal chunks": (Call(lambda x: torch.cat(x.chunk(3, 1)[::-1], 1)), "body.chunk"),
    "written": (Call(lambda x: x.index_fill(1, torch.tensor([2]), 0.0)), "body.index_fill"),
    "attention": (Call(lambda x: (x.flatten(2) @ x.flatten(2).mT).unsqueeze(2)), "body.matmul"),
}


@pytest.mark.parametrize("case", UNFOLLOWED)
def test_numbers_that_do_not_follow_fix_their_channels(case: str) -> None:
    body, name = UNFOLLOWED[case]
    graph = graph_of(Wrapped(body))
    assert graph.class_count == 0
    assert any(key.startswith(name) for key in graph.fixed), graph.fixed
    assert_exact(Wrapped(body), seeds=1)


class Branching(nn.Module):
    """Goes another way for another picture."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return y if y.sum() > 0 else -y


class Hidden(nn.Module):
    """Works where tracing can't see it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.from_numpy(self.conv(x).detach().numpy() * 2)
        return y + x


@pytest.mark.parametrize(("body", "why"), [(Branching(), "branches"), (Hidden(), "")])
def test_what_cannot_be_followed_is_one_opaque_module(body: nn.Module, why: str) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.block = nn.Conv2d(3, 8, 1), Block(8, 6)
            self.body, self.head = body, nn.Conv2d(8, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.block(self.body(self.block(self.first(x))))).mean((2, 3))

    graph = graph_of(Net())
    assert groups_of(graph) == {("block.conv1",): 6}
    assert type(body).__name__ in graph.fixed["body"] and why in graph.fixed["body"]
    layers = {layer.module: layer for layer in graph.layers}
    assert layers["body.conv"].macs_per_pair == 64  # what it costs is known all the same
    assert (layers["body.conv"].out_classes == FIXED_CLASS).all()


def test_a_network_that_cannot_be_followed_at_all_is_not_refused() -> None:
    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = TinyResNet()

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x) if x.mean() > 0 else -self.net(x)

    graph = graph_of(Whole())
    assert graph.class_count == 0
    assert len(graph.layers) == 6
    assert any("Whole: it branches on the values" in why for why in graph.fixed.values())


class NormAct(nn.BatchNorm2d):
    """A batch norm with its activation, as timm has it."""

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(super().forward(x))


class SamePadding(nn.Conv2d):
    """Pads as TensorFlow does, by the size of the picture."""

    def forward(self, x: Tensor) -> Tensor:
        extra = (-x.shape[-1]) % 2
        return super().forward(F.pad(x, (0, extra, 0, extra)))


class Standardized(nn.Conv2d):
    """Weights are standardized over the inputs of each filter: fewer inputs, other weights."""

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return F.conv2d(x, weight, self.bias, self.stride, self.padding)


@pytest.mark.parametrize(
    "body",
    [
        NormAct(8),
        SamePadding(8, 8, 3, padding=1),
        SamePadding(8, 8, 3, padding=1, groups=8),
        SamePadding(8, 8, 3, padding=1, groups=2),
        nn.Sequential(SamePadding(8, 8, 1), NormAct(8)),
    ],
)
def test_derived_layers_that_do_as_their_base_class(body: nn.Module) -> None:
    graph = graph_of(Wrapped(body))
    assert graph.fixed.keys() == {"output"}
    assert_exact(Wrapped(body), side=7)


def test_derived_layers_that_do_otherwise_are_fixed() -> None:
    graph = graph_of(Wrapped(Standardized(8, 8, 3, padding=1)))
    assert graph.class_count == 0
    assert_exact(Wrapped(Standardized(8, 8, 3, padding=1)))


def test_parametrized_weights_are_fixed() -> None:
    """A weight that is computed at each call can't be cut."""
    normed = nn.utils.parametrizations.weight_norm(nn.Conv2d(8, 8, 3, padding=1))
    graph = graph_of(Wrapped(normed))
    assert graph.class_count == 0
    assert "made anew" in graph.fixed["body"]
    assert_exact(Wrapped(normed))


@dataclass
class Answers:
    """What some libraries return."""

    logits: Tensor
    features: list[Tensor]


def test_answers_in_a_dataclass() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.side = TinyResNet(), nn.Conv2d(4, 2, 1)

        def forward(self, x: Tensor) -> Answers:
            y = self.net.block1(self.net.stem(x))
            return Answers(self.net.head(y.mean((2, 3))), [self.side(y)])

    model = randomize(Net())
    graph = channel_graph(model, torch.randn(1, 3, 8, 8))
    fixed = {layer.module for layer in graph.layers if (layer.out_classes == FIXED_CLASS).any()}
    assert fixed == {"net.head", "side"}


def test_user_hooks_and_modes_stay() -> None:
    model = TinyResNet()
    handle = model.block1.register_forward_hook(lambda module, inputs, output: output * 1.0)
    graph_of(model)
    assert list(model.block1._forward_hooks) == [handle.id]
    assert not any(module._forward_pre_hooks for module in model.modules())
