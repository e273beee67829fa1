"""The default agents: an unbiased estimator, a budget met by construction."""

from __future__ import annotations

import contextlib
import math

import pytest
import torch
from channel_nets import randomize
from decore_toys import TinyNet, ToyImages
from torch import Tensor
from torch.nn import functional as F

from compressor.compute import Compute
from compressor.cost import Limits, NetworkCosts
from compressor.decore.agents import GradientAgents
from compressor.decore.budget import cost_gradient, standardized_log
from compressor.decore.outcome import Outcome
from compressor.decore.policy import sample_actions, shared_threshold
from compressor.decore.taylor import taylor_scores
from compressor.epochs import DivergedError
from compressor.graph import channel_graph
from compressor.masks import ChannelMasks
from compressor.models import build_model

CPU = Compute(torch.device("cpu"), mixed_precision=False)


def outcome(actions: Tensor, losses: Tensor) -> Outcome:
    right = torch.ones(len(losses), dtype=torch.bool)
    return Outcome(actions, losses, torch.zeros_like(losses), right, torch.zeros_like(actions))


@pytest.fixture(scope="module")
def limits() -> Limits:
    graph = channel_graph(build_model("resnet20", 10), torch.randn(1, 3, 32, 32))
    costs = NetworkCosts(graph)
    whole = torch.ones(graph.class_count, dtype=torch.float64)
    return Limits(costs, {"macs": 0.4 * float(costs.macs(whole))})


def prior(limits: Limits) -> Tensor:
    return torch.rand(400, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 0.01


@pytest.mark.parametrize("temperature", [1.0, 0.1, 0.01])
@pytest.mark.parametrize("load", [2.0, 1.0, 0.3])
def test_shared_threshold_meets_the_load(limits: Limits, temperature: float, load: float) -> None:
    logits = torch.randn(400, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    threshold = shared_threshold(logits, temperature, limits, load)
    p = torch.sigmoid((logits - threshold) / temperature)
    assert float(limits.load(p)) == pytest.approx(load, rel=1e-6)


def test_threshold_keeps_everything_where_that_is_cheap_enough(limits: Limits) -> None:
    logits = torch.randn(400, dtype=torch.float64)
    threshold = shared_threshold(logits, 0.1, limits, 10.0)
    assert float(torch.sigmoid((logits - threshold) / 0.1).min()) > 0.999


def test_schedule_falls_from_the_whole_cost_to_the_limit(limits: Limits) -> None:
    agents = GradientAgents(prior(limits), limits)
    loads = [agents.scheduled_load(step / 50) for step in range(51)]
    assert loads[0] == pytest.approx(2.5)
    assert loads == sorted(loads, reverse=True)
    assert loads[30:] == [1.0] * 21  # from 0.6 of the search on
    assert agents.scheduled_load(0.3) == pytest.approx(1 + 1.5 * 0.5**3)
    for progress in (0.0, 0.25, 0.6, 1.0):
        p = agents.probabilities(progress)
        expected = agents.scheduled_load(progress)
        assert float(limits.load(p)) == pytest.approx(expected, rel=1e-2)
    assert (agents.temperature(0.0), agents.temperature(1.0)) == pytest.approx((0.2, 0.03))


def test_policy_ends_sharp(limits: Limits) -> None:
    agents = GradientAgents(prior(limits), limits)

    def doubt(progress: float) -> float:
        p = agents.probabilities(progress)
        return float((p * (1 - p)).mean())

    assert doubt(1.0) < 0.5 * doubt(0.6)


def test_one_step_moves_along_equal_cost(limits: Limits) -> None:
    """The logits' step doesn't change the expected cost to first order before Adam scales it."""
    agents = GradientAgents(prior(limits), limits)
    p = agents.probabilities(0.5)
    actions = sample_actions(p, 32, torch.Generator().manual_seed(2))
    importance = torch.rand(400, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    before = agents.ranking()
    batch = outcome(actions, -(actions @ importance))
    reward = agents.learn(batch, p, 0.5)
    assert reward == pytest.approx(float((actions @ importance).mean()))
    gradient = agents._learned.grad
    assert gradient is not None
    slope = p * (1 - p) / agents.temperature(0.5)
    price = cost_gradient(limits, p) * slope
    cosine = float(gradient @ price / gradient.norm() / price.norm())
    assert abs(cosine) < 1e-9
    assert bool((agents.ranking() != before).any())


def test_learning_finds_the_useful_channels() -> None:
    """Three of six channels matter; the prior says nothing; half the cost may stay."""
    graph = channel_graph(TinyNet(width=6), torch.randn(1, 3, 6, 6))
    costs = NetworkCosts(graph)
    limits = Limits(costs, {"macs": 0.5 * float(costs.macs(torch.ones(6).double()))})
    agents = GradientAgents(torch.ones(6), limits)
    useful = torch.tensor([1.0, 0, 1, 0, 0, 1], dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    for step in range(150):
        p = agents.probabilities(0.6)
        actions = sample_actions(p, 16, generator)
        agents.learn(outcome(actions, 1 - actions @ useful / 3), p, step / 150)
    p = agents.probabilities(1.0)
    assert (p > 0.5).double().tolist() == useful.tolist()


def test_state_round_trip(limits: Limits) -> None:
    first, second = (GradientAgents(prior(limits), limits) for _ in range(2))

    def teach(agents: GradientAgents, seed: int) -> None:
        p = agents.probabilities(0.5)
        actions = sample_actions(p, 8, torch.Generator().manual_seed(seed))
        losses = actions.mean(dim=1)
        zeros = torch.zeros(8)
        right = torch.ones(8, dtype=torch.bool)
        agents.learn(Outcome(actions, losses, zeros, right, actions * 0.1), p, 0.5)

    teach(first, 0)
    second.load_state_dict(first.state_dict())
    teach(first, 1)
    teach(second, 1)
    assert torch.equal(first.ranking(), second.ranking())
    assert torch.equal(first.probabilities(1.0), second.probabilities(1.0))


def test_without_limits_nothing_is_dropped(limits: Limits) -> None:
    free = Limits(limits.costs, {})
    agents = GradientAgents(prior(limits), free)
    assert float(agents.probabilities(1.0).min()) > 0.999
    assert torch.equal(cost_gradient(free, torch.rand(400)), torch.ones(400).double())


def test_standardized_log() -> None:
    logs = standardized_log(torch.tensor([1.0, 10.0, 100.0, 0.0], dtype=torch.float64))
    assert float(logs.mean()) == pytest.approx(0, abs=1e-12)
    assert float(logs.std()) == pytest.approx(1)
    # zero counts as a tenth of the smallest: equal steps in the logarithm
    steps = logs.sort().values.diff()
    assert steps.tolist() == pytest.approx([float(steps[0])] * 3)


def test_taylor_scores_are_mean_squared_first_order_changes() -> None:
    """Against the gradient of each image alone, and against dropping a channel for real."""
    torch.manual_seed(1)
    model, images = randomize(TinyNet()), ToyImages()
    model.train()
    graph = channel_graph(model, images.x[:1])
    statistics = model.bn1.running_mean.clone()
    scores = taylor_scores(model, graph, images, CPU, batches=2)
    assert torch.equal(model.bn1.running_mean, statistics)

    model.eval()
    batches = list(images.train(0))[:2]
    expected = torch.zeros(4, dtype=torch.float64)
    for x, labels in batches:
        for image, label in zip(x, labels, strict=True):
            mask = torch.ones(4, requires_grad=True)
            with ChannelMasks(model, graph) as masks:
                masks.set(mask)
                loss = F.cross_entropy(model(image[None]), label[None])
            (gradient,) = torch.autograd.grad(loss, mask)
            expected += gradient.double().square() / sum(len(x) for x, _ in batches)
    torch.testing.assert_close(scores, expected, rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("diverges", [False, True])
def test_taylor_scores_leave_every_module_in_its_mode(diverges: bool) -> None:
    model, images = randomize(TinyNet()).train(), ToyImages()
    model.bn1.eval()
    modes = [module.training for module in model.modules()]
    if diverges:
        model.head.bias.data.fill_(math.nan)
    error = pytest.raises(DivergedError) if diverges else contextlib.nullcontext()
    with error:
        taylor_scores(model, channel_graph(model, images.x[:1]), images, CPU, batches=1)
    assert [module.training for module in model.modules()] == modes
    assert not any(module._forward_pre_hooks for module in model.modules())
