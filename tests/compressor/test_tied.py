"""Layers that share their weights: cut alike, shared afterwards, counted once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from channel_nets import Block, assert_exact, graph_of, random_keep, randomize
from torch import Tensor, nn
from torch.nn import functional as F

from compressor.compute import Compute
from compressor.cost import NetworkCosts, as_tensor
from compressor.methods.dead import find_dead
from compressor.saved import load_model, save_model
from compressor.slim import slim


class Tied(nn.Module):
    """Two blocks with the same convolutions and norms of their own, residual or one by one."""

    def __init__(self, num_classes: int = 3, *, residual: bool = True) -> None:
        super().__init__()
        self.residual = residual
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.first, self.second = Block(6, 7), Block(6, 7)
        self.head = nn.Linear(6, num_classes)
        self.second.conv1.weight = self.first.conv1.weight
        self.second.conv2.weight = self.first.conv2.weight

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        if self.residual:
            return self.head(self.second(self.first(x)).mean((2, 3)))
        for block in (self.first, self.second):
            x = F.relu(block.bn1(block.conv1(x)))
            x = F.relu(block.bn2(block.conv2(x)))
        return self.head(x.mean((2, 3)))


class Chain(nn.Module):
    """Two linear layers, 5 -> 5, with one weight and biases of their own; no norms."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 5, 1)
        self.one, self.two, self.head = nn.Linear(5, 5), nn.Linear(5, 5), nn.Linear(5, 2)
        self.two.weight = self.one.weight

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x)).mean((2, 3))
        return self.head(F.relu(self.two(F.relu(self.one(x)))))


def build(num_classes: int) -> nn.Module:
    torch.manual_seed(0)
    return randomize(Tied(num_classes)).eval()


def size(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("residual", [True, False])
def test_slimmed_is_masked_and_still_tied(residual: bool) -> None:
    torch.manual_seed(0)
    model = randomize(Tied(residual=residual)).eval()
    assert_exact(model)
    graph = graph_of(model.float())
    for seed in range(4):
        slimmed = slim(model, graph, random_keep(graph, seed, empty_every=1))
        assert slimmed.second.conv1.weight is slimmed.first.conv1.weight
        assert slimmed.second.conv2.weight is slimmed.first.conv2.weight
        assert size(slimmed) < size(model)


def test_one_that_keeps_its_channels_holds_the_other() -> None:
    class ByWidth(Chain):
        def forward(self, x: Tensor) -> Tensor:
            x = F.relu(self.one(F.relu(self.stem(x)).mean((2, 3))))
            return self.head(F.relu(self.two(x.view(-1, 5))))

    model = ByWidth()
    graph = graph_of(model)
    assert all((cut.classes < 0).all() for cut in graph.slices if cut.module in ("one", "two"))
    assert_exact(model)


def test_a_weight_without_a_norm_is_stored_once() -> None:
    """By hand: one byte a weight, four a bias; MACs count at both places."""
    graph = graph_of(Chain())
    keep = np.zeros(graph.class_count, dtype=np.bool_)
    (cut,) = (c for c in graph.slices if (c.module, c.tensor, c.axis) == ("one", "weight", 0))
    keep[cut.classes[:3]] = True
    (cut,) = (c for c in graph.slices if (c.module, c.tensor, c.axis) == ("one", "weight", 1))
    keep[cut.classes[:3]] = True
    kept, costs = as_tensor(keep), NetworkCosts(graph)
    assert float(costs.weight_bytes(kept)) == 3 * 3 + 3 * 3 + 3 * 2 + 4 * (3 + 3 + 3 + 2)
    assert float(costs.macs(kept)) == 64 * 3 * 3 + 3 * 3 + 3 * 3 + 3 * 2
    slimmed = slim(Chain(), graph, keep)
    assert size(slimmed) == 3 * 3 + 3 * 3 + 3 * 2 + (3 + 3 + 3 + 2)


def test_weights_behind_which_norms_are_folded_are_stored_apart() -> None:
    graph = graph_of(build(3))
    assert all(layer.weights_per_pair for layer in graph.layers)


def test_a_saved_network_is_tied_when_it_comes_back(tmp_path: Path) -> None:
    model = build(10)
    graph = graph_of(model)
    slimmed = slim(model, graph, random_keep(graph, 0))
    save_model(slimmed, f"{__name__}:build", 10, tmp_path)
    loaded = load_model(tmp_path)
    assert size(loaded) == size(slimmed)
    assert loaded.second.conv1.weight is loaded.first.conv1.weight
    x = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        assert torch.equal(loaded(x), slimmed(x))
    # One that was untied, by an earlier version or by training, stays so.
    slimmed.second.conv1.weight = nn.Parameter(slimmed.first.conv1.weight.detach() + 1)
    save_model(slimmed, f"{__name__}:build", 10, tmp_path)
    with torch.no_grad():
        assert torch.equal(load_model(tmp_path)(x), slimmed(x))


def test_a_constant_is_folded_into_one_of_the_layers_that_share_a_bias() -> None:
    class OneBatch:
        steps_per_epoch = 1

        def train(self, epoch: int) -> list[tuple[Tensor, Tensor]]:
            return [(torch.randn(8, 3, 8, 8), torch.zeros(8))]

        def validation(self) -> list[tuple[Tensor, Tensor]]:
            return self.train(0)

    model = Chain().eval()
    model.two.weight = nn.Parameter(model.two.weight.detach().clone())
    model.two.bias = model.one.bias
    model.stem.weight.data[1], model.stem.bias.data[1] = 0, 1  # its second channel is always 1
    dead = find_dead(model, graph_of(model), OneBatch(), Compute.choose())
    assert dead.constant == 1
    assert dead.difference < 1e-6
