"""Agents that know what their channels are worth: the fixed point, the prior, what stays known."""

from __future__ import annotations

import pytest
import torch
from decore_toys import TinyNet
from torch import Tensor

from compressor.cost import Limits, NetworkCosts
from compressor.decore.agents import GradientAgents
from compressor.decore.budget import cost_gradient
from compressor.decore.outcome import Outcome
from compressor.decore.policy import sample_actions
from compressor.decore.values import SPREAD, ValueAgents
from compressor.graph import channel_graph
from compressor.models import build_model

USEFUL = torch.tensor([3.0, 0.2, 2.0, 0.1, 0.3, 2.5], dtype=torch.float64)


@pytest.fixture
def limits() -> Limits:
    """Half the MACs of six channels that cost the same."""
    graph = channel_graph(TinyNet(width=6), torch.randn(1, 3, 6, 6))
    costs = NetworkCosts(graph)
    return Limits(costs, {"macs": 0.5 * float(costs.macs(torch.ones(6).double()))})


def batch(p: Tensor, worth: Tensor, generator: torch.Generator, images: int = 64) -> Outcome:
    """A loss that rises by its worth with every channel that goes."""
    actions = sample_actions(p.double(), images, generator)
    losses = (1 - actions) @ worth
    zeros = torch.zeros(images)
    return Outcome(actions, losses, zeros, zeros, -worth.expand(images, -1))


def taught(agents: ValueAgents, worth: Tensor, steps: int = 150) -> ValueAgents:
    generator = torch.Generator().manual_seed(0)
    for step in range(steps):
        p = agents.probabilities(step / steps)
        agents.learn(batch(p, worth, generator), p, step / steps)
    return agents


def test_useful_channels_are_found_where_the_prior_says_nothing(limits: Limits) -> None:
    agents = taught(ValueAgents(torch.ones(6), limits), USEFUL)
    assert (agents.probabilities(1.0) > 0.5).tolist() == (USEFUL > 1).tolist()


def test_logits_are_worth_per_price_once_much_is_known(limits: Limits) -> None:
    agents = ValueAgents(torch.ones(6), limits)
    even = torch.full((6,), 0.5, dtype=torch.float64)
    generator = torch.Generator().manual_seed(1)
    for _ in range(400):
        agents.learn(batch(even, USEFUL, generator), even, 0.5)
    # MEMORY of 5 against TRUST of 1 in the prior, which here is even.
    scale = float(USEFUL.mean())
    expected = ((5 * USEFUL / scale + 1) / 6).log()
    found = agents.ranking() - agents.ranking().mean()
    assert torch.allclose(found, expected - expected.mean(), atol=0.05)


def test_dearer_channels_have_to_be_worth_more() -> None:
    """Channels of a ResNet-20 cost different numbers of MACs; the prior is as even as can be."""
    graph = channel_graph(build_model("resnet20", 10), torch.randn(1, 3, 32, 32))
    costs = NetworkCosts(graph)
    whole = torch.ones(graph.class_count, dtype=torch.float64)
    limits = Limits(costs, {"macs": 0.4 * float(costs.macs(whole))})
    even = whole / 2
    price = cost_gradient(limits, even)
    for worth, same in ((price, True), (whole, False)):
        agents = ValueAgents(cost_gradient(limits, whole), limits)
        agents.learn(batch(even, worth, torch.Generator().manual_seed(2)), even, 0.5)
        spread = float(agents.ranking().std())
        assert (spread < 0.05) == same  # worth what they cost: no one goes first
    assert int(agents.ranking().argmin()) in (price == price.max()).nonzero()


def test_the_prior_decides_while_nothing_is_known(limits: Limits) -> None:
    prior = torch.rand(6, generator=torch.Generator().manual_seed(3), dtype=torch.float64) + 0.1
    agents, others = ValueAgents(prior, limits), GradientAgents(prior, limits)
    assert torch.equal(agents.ranking().argsort(), others.ranking().argsort())
    certain = torch.ones(6, dtype=torch.float64)
    before = agents.ranking()
    agents.learn(batch(certain, USEFUL, torch.Generator().manual_seed(4)), certain, 0.1)
    assert torch.allclose(agents.ranking(), before)  # all were kept: there is nothing to compare
    assert float(before.std()) == pytest.approx(SPREAD, rel=1e-6)


def test_what_is_known_of_a_decided_agent_does_not_fade(limits: Limits) -> None:
    agents = taught(ValueAgents(torch.ones(6), limits), USEFUL, steps=100)
    decided = (USEFUL > 1).double()
    order = agents.ranking().argsort()
    generator = torch.Generator().manual_seed(5)
    for _ in range(500):
        agents.learn(batch(decided, torch.zeros(6).double(), generator), decided, 1.0)
    assert torch.equal(agents.ranking().argsort(), order)


def test_harm_counts_as_least(limits: Limits) -> None:
    worth = USEFUL.clone()
    worth[0] = -1.0
    agents = taught(ValueAgents(torch.ones(6), limits), worth)
    assert int(agents.ranking().argmin()) == 0
    assert bool(agents.ranking().isfinite().all())


def test_load_is_on_schedule_all_the_time(limits: Limits) -> None:
    agents = ValueAgents(torch.ones(6), limits)
    generator = torch.Generator().manual_seed(6)
    for step in range(30):
        p = agents.probabilities(step / 30)
        assert float(limits.load(p)) == pytest.approx(agents.scheduled_load(step / 30), rel=1e-2)
        agents.learn(batch(p, USEFUL, generator), p, step / 30)


def test_what_is_gone_stays_gone_and_a_state_comes_back(limits: Limits) -> None:
    first, second = (ValueAgents(torch.ones(6), limits) for _ in range(2))
    first.forget(torch.tensor([0, 0, 0, 1, 0, 0], dtype=torch.bool))
    taught(first, USEFUL, steps=20)
    second.load_state_dict(first.state_dict())
    taught(first, USEFUL, steps=5)
    taught(second, USEFUL, steps=5)
    assert torch.equal(first.ranking(), second.ranking())
    assert float(second.ranking()[3]) == -torch.inf
    assert float(second.probabilities(0.5)[3]) == 0
