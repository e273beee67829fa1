"""Cost functions against slimmed networks, hand counts and finite differences."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from channel_nets import TinyResNet, random_keep
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from compressor.cost import CostName, Limits, NetworkCosts, as_tensor
from compressor.graph import ChannelGraph, channel_graph
from compressor.models import build_model
from compressor.slim import slim

NAMES: tuple[CostName, ...] = ("macs", "weight_bytes", "activation_bytes")


class Chain(nn.Module):
    """Conv 3 -> 4, ReLU, depthwise, pool, linear 4 -> 2, on 8x8 pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.relu = nn.ReLU()
        self.depth = nn.Conv2d(4, 4, 3, padding=1, stride=2, groups=4)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.pool(self.depth(self.relu(self.conv(x)))).flatten(1))


def chain() -> ChannelGraph:
    return channel_graph(Chain(), torch.randn(1, 3, 8, 8))


def test_chain_by_hand() -> None:
    graph, kept = chain(), np.array([True, False, True, True])
    costs = NetworkCosts(graph)
    keep = as_tensor(kept)
    assert float(costs.macs(keep)) == 64 * 9 * 3 * 3 + 16 * 9 * 3 + 3 * 2
    assert costs.layer_macs(keep).tolist() == [64 * 9 * 3 * 3, 16 * 9 * 3, 6]
    # weights of one byte, biases of four
    assert float(costs.weight_bytes(keep)) == (81 + 27 + 6) + 4 * (3 + 3 + 2)
    floats = NetworkCosts(graph, bytes_per_weight=4, bytes_per_activation=4)
    assert float(floats.weight_bytes(keep)) == 4 * (81 + 27 + 6) + 4 * (3 + 3 + 2)
    # while the convolution runs: its input of 3 x 64 and its output of 3 x 64
    assert float(costs.activation_bytes(keep)) == 3 * 64 + 3 * 64
    assert float(floats.activation_bytes(keep)) == 4 * (3 * 64 + 3 * 64)
    # with one channel the same moment counts 3 x 64 + 64
    one = as_tensor(np.array([True, False, False, False]))
    assert float(costs.activation_bytes(one)) == 3 * 64 + 64


def test_residual_stream_stays_alive_beside_its_branch() -> None:
    """At the second conv of a block: the stream, the hidden tensor, and the conv's output."""
    graph = channel_graph(TinyResNet(width=4, hidden=10), torch.randn(1, 3, 8, 8))
    whole = as_tensor(graph.all_kept())
    assert float(NetworkCosts(graph).activation_bytes(whole)) == (4 + 10 + 4) * 64


@pytest.mark.parametrize("name", ["resnet20", "mobilenet_v3_small"])
def test_hard_costs_are_those_of_the_slimmed_network(name: str) -> None:
    side = 32
    model = build_model(name, 10).eval()
    graph = channel_graph(model, torch.randn(1, 3, side, side))
    costs = NetworkCosts(graph)
    for seed in range(3):
        keep = random_keep(graph, seed, empty_every=0)
        slimmed = slim(model, graph, keep)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            slimmed(torch.randn(1, 3, side, side))
        assert float(costs.macs(as_tensor(keep))) == counter.get_total_flops() // 2
        # Batch norm folds into the convolution before it: one weight per connection, one bias
        # per output.
        layers = [m for m in slimmed.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
        expected = sum(m.weight.numel() + 4 * m.weight.shape[0] for m in layers)
        assert float(costs.weight_bytes(as_tensor(keep))) == expected
        # Slimming again from the slimmed network: nothing to cut, the same costs.
        again = channel_graph(slimmed, torch.randn(1, 3, side, side))
        for cost in NAMES:
            of_slimmed = NetworkCosts(again).value(cost, as_tensor(again.all_kept()))
            assert float(of_slimmed) == float(costs.value(cost, as_tensor(keep)))


@pytest.mark.parametrize("cost", NAMES)
def test_gradients_and_monotony(cost: CostName) -> None:
    graph = channel_graph(build_model("resnet20", 10), torch.randn(1, 3, 16, 16))
    costs = NetworkCosts(graph)
    torch.manual_seed(0)
    p = (torch.rand(graph.class_count, dtype=torch.float64) * 0.8 + 0.1).requires_grad_()
    (gradient,) = torch.autograd.grad(costs.value(cost, p), p)
    assert bool((gradient >= 0).all())
    assert bool((gradient > 0).any())
    if cost != "activation_bytes":  # whose peak only some channels make
        assert bool((gradient > 0).all())
    for index in (0, 57, graph.class_count - 1):
        step = torch.zeros_like(p)
        step[index] = 1e-5
        rise = (costs.value(cost, p + step) - costs.value(cost, p - step)).detach()
        assert float(rise) / 2e-5 == pytest.approx(float(gradient[index]), rel=1e-4, abs=1e-6)
    order = torch.randperm(graph.class_count)
    keep = torch.ones(graph.class_count, dtype=torch.float64)
    before = float(costs.value(cost, keep))
    for index in order[:200]:
        keep[index] = 0
        after = float(costs.value(cost, keep))
        assert after <= before
        before = after


def test_expectation_over_independent_layers_is_exact() -> None:
    """Where input and output belong to different agents, E[in x out] = E[in] E[out]."""
    graph, p = chain(), torch.tensor([0.2, 0.5, 0.7, 0.9], dtype=torch.float64)
    costs = NetworkCosts(graph)
    expected = 0.0
    for number in range(16):
        keep = torch.tensor([float(number >> bit & 1) for bit in range(4)], dtype=torch.float64)
        chance = float((p * keep + (1 - p) * (1 - keep)).prod())
        expected += chance * float(costs.macs(keep))
    assert float(costs.macs(p)) == pytest.approx(expected, rel=1e-12)


def test_limits() -> None:
    costs = NetworkCosts(chain())
    whole = torch.ones(4, dtype=torch.float64)
    macs, size = float(costs.macs(whole)), float(costs.weight_bytes(whole))
    limits = Limits(costs, {"macs": macs / 2, "weight_bytes": size / 3})
    assert float(limits.load(whole)) == pytest.approx(3)
    assert limits.ratios(whole) == pytest.approx({"macs": 2, "weight_bytes": 3})
    assert float(Limits(costs, {}).load(whole)) == 0
    with pytest.raises(ValueError, match="limit of macs is 0, must be positive"):
        Limits(costs, {"macs": 0})
