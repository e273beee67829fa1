"""Masks of their own for every image, wherever a network puts its images."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from channel_nets import randomize
from torch import Tensor, nn
from torch.nn import functional as F

from compressor.compute import Compute
from compressor.graph import ChannelGraph, channel_graph
from compressor.graph.image_rows import ImageRows, find_image_rows
from compressor.masks import ChannelMasks
from compressor.methods.dead import find_dead

SIDE = 4
IMAGES = SIDE * SIDE  # as many images as positions: sizes alone can't tell them apart


class Tokens(nn.Module):
    """A convolution, an MLP over its positions that are laid out in some way, a linear head."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, padding=1)
        self.norm = nn.LayerNorm(6)
        self.up = nn.Linear(6, 7)
        self.down = nn.Linear(7, 6)
        self.head = nn.Linear(6, 3)

    def mix(self, x: Tensor) -> Tensor:
        return x + self.down(F.relu(self.up(self.norm(x))))

    def laid_out(self, x: Tensor) -> Tensor:
        """Run `mix` on positions, (N, L, C), and return what it makes of them likewise."""
        return self.mix(x)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv(x)).flatten(2).transpose(1, 2)
        return self.head(self.laid_out(x).mean(1))


class Folded(Tokens):
    """Position by position of the first image, then of the second."""

    def laid_out(self, x: Tensor) -> Tensor:
        n, length, c = x.shape
        return self.mix(x.reshape(-1, c)).reshape(n, length, -1)


class FoldedByPosition(Tokens):
    """Image by image at the first position, then at the second."""

    def laid_out(self, x: Tensor) -> Tensor:
        n, length, c = x.shape
        y = self.mix(x.transpose(0, 1).reshape(-1, c))
        return y.reshape(length, n, -1).transpose(0, 1)


class Windows(Tokens):
    """(2 outer * N * 2 inner, 4 positions, C): images stand in the middle of the axis."""

    def laid_out(self, x: Tensor) -> Tensor:
        n, length, c = x.shape
        windows = x.reshape(n, 2, 2, length // 4, c).transpose(0, 1)
        y = self.mix(windows.reshape(-1, length // 4, c))
        return y.reshape(2, n, 2, length // 4, -1).transpose(0, 1).reshape(n, length, -1)


class SequenceFirst(Tokens):
    def laid_out(self, x: Tensor) -> Tensor:
        return self.mix(x.transpose(0, 1)).transpose(0, 1)


class FoldedMaps(Tokens):
    """Halves of the picture as images of their own, for convolutions and a norm over channels."""

    def __init__(self) -> None:
        super().__init__()
        self.halves = nn.Sequential(
            nn.Conv2d(6, 6, 3, padding=1), nn.GroupNorm(1, 6), nn.Conv2d(6, 6, 1)
        )

    def laid_out(self, x: Tensor) -> Tensor:
        n, _, c = x.shape
        maps = x.transpose(1, 2).reshape(n, c, 2, SIDE // 2, SIDE).transpose(1, 2)
        y = self.halves(maps.reshape(-1, c, SIDE // 2, SIDE))
        return y.reshape(n, 2, -1, SIDE // 2 * SIDE).transpose(2, 3).flatten(1, 2)


class ByName(Tokens):
    """Layers that are called by keyword."""

    def mix(self, x: Tensor) -> Tensor:
        return x + self.down(input=F.relu(self.up(input=self.norm(input=x))))


LAYOUTS = [Tokens, Folded, FoldedByPosition, Windows, SequenceFirst, FoldedMaps, ByName]


def network(kind: type[nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return randomize(kind()).double().eval()


def traced(model: nn.Module) -> ChannelGraph:
    return channel_graph(model, torch.zeros(1, 3, SIDE, SIDE).to(next(model.parameters())))


@pytest.mark.parametrize("kind", LAYOUTS)
def test_each_image_gets_its_own_mask(kind: type[nn.Module]) -> None:
    """As if every image ran alone with its mask; gradients reach the taught images alone."""
    model = network(kind)
    graph = traced(model)
    assert set(graph.fixed) == {"output"}
    x = torch.randn(IMAGES, 3, SIDE, SIDE).double()
    mask = (torch.rand(IMAGES, graph.class_count) < 0.7).double().requires_grad_()
    with ChannelMasks(model, graph) as masks:
        alone = []
        for image, own in zip(x, mask, strict=True):
            masks.set(own)
            alone.append(model(image[None]))
        expected = torch.cat(alone)
        masks.set(mask)
        found = model(x)
        masks.set(mask, taught_images=5)
        taught = model(x)
    assert torch.allclose(found, expected, rtol=0, atol=1e-12)
    wanted, whole, part = (
        torch.autograd.grad(y.square().sum(), mask, retain_graph=True)[0]
        for y in (expected, found, taught)
    )
    assert torch.allclose(whole, wanted, rtol=0, atol=1e-6)
    assert torch.allclose(part[:5], wanted[:5], rtol=0, atol=1e-6)


def test_means_are_those_of_a_batch_laid_out_as_usual() -> None:
    """A dropped channel gives its mean over images and positions, however these are laid out."""
    answers = []
    for kind in (Tokens, Folded, FoldedByPosition, Windows, SequenceFirst):
        model = network(kind)
        graph = traced(model)
        generator = torch.Generator().manual_seed(1)
        x = torch.randn(IMAGES, 3, SIDE, SIDE, generator=generator).double()
        mask = (torch.rand(IMAGES, graph.class_count, generator=generator) < 0.7).double()
        with torch.no_grad(), ChannelMasks(model, graph, with_means=True) as masks:
            masks.set(mask)
            answers.append(model(x))
    for other in answers[1:]:
        assert torch.allclose(other, answers[0], rtol=0, atol=1e-12)


def test_what_all_images_share_keeps_its_channels() -> None:
    """A table that a small network makes of fixed numbers (Swin v2) has no rows for images."""

    class Table(Tokens):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("places", torch.randn(SIDE * SIDE, 2))
            self.inner, self.outer = nn.Linear(2, 5), nn.Linear(5, 1)

        def laid_out(self, x: Tensor) -> Tensor:
            return self.mix(x) * self.outer(F.relu(self.inner(self.places)))

    model = network(Table).float()
    graph = traced(model)
    assert "belongs to which image" in graph.fixed["outer"]
    x = torch.randn(3, 3, SIDE, SIDE)
    with torch.no_grad(), ChannelMasks(model, graph) as masks:
        masks.set(torch.ones(3, graph.class_count))
        masked = model(x)
    assert torch.allclose(masked, model(x), atol=1e-6)


def test_looking_for_images_leaves_no_trace() -> None:
    model = network(Windows).float()
    before, random = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    found = find_image_rows(model, torch.zeros(1, 3, SIDE, SIDE), ["conv", "up", "head"])
    assert found == {"conv": ImageRows(), "up": ImageRows(0, 2), "head": ImageRows()}
    assert torch.equal(random, torch.get_rng_state())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_dead_channels_of_layers_called_by_keyword() -> None:
    model = network(ByName).float()
    model.down.weight.data[:, 2] = 0  # nothing reads the third hidden channel
    graph = traced(model)

    class OneBatch:
        steps_per_epoch = 1

        def train(self, epoch: int) -> list[tuple[Tensor, Tensor]]:
            return [(torch.randn(8, 3, SIDE, SIDE), torch.zeros(8))]

        def validation(self) -> list[tuple[Tensor, Tensor]]:
            return self.train(0)

    dead = find_dead(model, graph, OneBatch(), Compute.choose())
    (cut,) = (c for c in graph.slices if (c.module, c.axis) == ("down", 1))
    assert np.flatnonzero(~dead.keep).tolist() == [int(cut.classes[2])]
