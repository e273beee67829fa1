"""The paper's agents, piece by piece."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from channel_nets import TinyResNet, randomize
from decore_toys import TinyNet, ToyImages, all_actions, chances
from torch import Tensor, nn

from compressor.decore import paper
from compressor.decore.agents import Outcome
from compressor.decore.paper import PaperAgents, layer_rewards
from compressor.decore.policy import log_probability_gradient, sample_actions
from compressor.graph import ChannelGraph, channel_graph
from compressor.masks import ChannelMasks
from compressor.models import build_model

LAMBDA = 3.0


def outcome(actions: Tensor, right: Tensor) -> Outcome:
    zeros = torch.zeros(len(actions))
    return Outcome(actions, zeros, zeros, right, torch.zeros_like(actions))


def resnet_graph() -> ChannelGraph:
    return channel_graph(TinyResNet(width=3, hidden=2), torch.randn(1, 3, 6, 6))


@pytest.mark.parametrize(
    ("actions", "right", "expected"),
    [
        ([1, 1, 1, 1], True, [0, 0]),  # nothing dropped earns nothing
        ([1, 1, 1, 1], False, [0, 0]),  # and costs nothing
        ([0, 1, 1, 1], True, [1, 0]),
        ([0, 1, 1, 1], False, [-LAMBDA, 0]),
        ([0, 0, 1, 0], True, [2, 1]),
        ([0, 0, 1, 0], False, [-2 * LAMBDA, -LAMBDA]),
        ([0, 0, 0, 0], True, [2, 2]),
    ],
)
def test_reward_table(actions: list[int], right: bool, expected: list[float]) -> None:
    """R_i = (channels dropped in layer i) x (1 if right, -lambda if wrong)."""
    rewards = layer_rewards(
        torch.tensor([actions]).float(),
        torch.tensor([right]),
        torch.tensor([0, 0, 1, 1]),
        2,
        LAMBDA,
    )
    assert rewards.tolist() == [expected]


@pytest.mark.parametrize("penalty", [500.0, 100.0, 8.0, 4.0])
def test_mean_reward_is_zero_at_the_break_even_accuracy(penalty: float) -> None:
    """Positive only above a train accuracy of lambda / (1 + lambda)."""
    right = torch.ones(int(penalty) + 1, dtype=torch.bool)
    right[0] = False
    rewards = layer_rewards(
        torch.zeros(len(right), 1), right, torch.zeros(1, dtype=torch.long), 1, penalty
    )
    assert float(rewards.mean()) == pytest.approx(0, abs=1e-9)
    assert float(right.double().mean()) == pytest.approx(penalty / (1 + penalty))


def test_start_and_constants() -> None:
    agents = PaperAgents(resnet_graph())
    assert agents.ranking().tolist() == [6.9] * 7
    assert agents.probabilities(0.0).tolist() == pytest.approx([0.999] * 7, abs=1e-4)
    assert torch.equal(agents.probabilities(0.0), agents.probabilities(1.0))
    assert (paper.INITIAL_LOGIT, paper.POLICY_RATE, paper.THRESHOLD) == (6.9, 0.01, 0.5)


def test_score_is_the_gradient_of_the_log_probability() -> None:
    logits = torch.randn(5, dtype=torch.float64, requires_grad=True)
    actions = torch.tensor([1.0, 0, 0, 1, 1], dtype=torch.float64)
    log_pi = torch.distributions.Bernoulli(logits=logits).log_prob(actions).sum()
    (expected,) = torch.autograd.grad(log_pi, logits)
    found = log_probability_gradient(actions, torch.sigmoid(logits.detach()))
    torch.testing.assert_close(found, expected)


def test_samples_follow_the_probabilities() -> None:
    p = torch.tensor([0.1, 0.5, 0.999], dtype=torch.float64)
    actions = sample_actions(p, 20_000, torch.Generator().manual_seed(0))
    assert set(actions.unique().tolist()) == {0.0, 1.0}
    assert torch.allclose(actions.mean(0), p, atol=4 * 0.5 / math.sqrt(20_000))


def test_one_step_is_adam_along_the_published_estimator() -> None:
    """(1/N) sum_b sum_i grad log pi(a_b,i) R_b,i, ascended by Adam at 0.01."""
    graph = resnet_graph()
    agents = PaperAgents(graph, LAMBDA)
    actions = torch.tensor([[1, 0, 1, 1, 0, 1, 1], [0, 0, 1, 1, 1, 1, 1], [1.0] * 7])
    right = torch.tensor([True, False, True])

    logits = torch.full((7,), 6.9, dtype=torch.float64, requires_grad=True)
    objective = torch.zeros((), dtype=torch.float64)
    for action, good in zip(actions.double(), right.tolist(), strict=True):
        log_pi = torch.distributions.Bernoulli(logits=logits).log_prob(action)
        for group in graph.groups:
            of_layer = torch.from_numpy(group.classes)
            reward = (1 - action[of_layer]).sum() * (1 if good else -LAMBDA)
            objective = objective + log_pi[of_layer].sum() * reward / len(actions)
    adam = torch.optim.Adam([logits], lr=0.01)
    (-objective).backward()
    adam.step()

    mean_reward = agents.learn(outcome(actions, right), agents.probabilities(0.0), 0.0)
    torch.testing.assert_close(agents.ranking(), logits.detach(), rtol=0, atol=1e-12)
    # dropped x accuracy over 3 images and 3 layers: (1 + 1) - 3 * 2 = -4
    assert mean_reward == pytest.approx(-4 / 9)


def test_estimator_is_the_gradient_of_the_expected_reward() -> None:
    """Monte Carlo over a real net against enumeration of all 16 actions."""
    torch.manual_seed(0)
    model = randomize(TinyNet()).eval()
    model.head.bias.data.zero_()
    x, labels = ToyImages().x[:1], torch.tensor([0])
    graph = channel_graph(model, x)
    assert graph.class_count == 4
    p = torch.tensor([0.3, 0.6, 0.8, 0.5], dtype=torch.float64)
    actions = all_actions(4)
    with ChannelMasks(model, graph) as masks, torch.no_grad():
        masks.set(actions.float())
        right = model(x.expand(16, -1, -1, -1)).argmax(1) == labels
    assert 0 < int(right.sum()) < 16  # both outcomes occur

    layer_of = torch.zeros(4, dtype=torch.long)
    rewards = layer_rewards(actions, right, layer_of, 1, LAMBDA)[:, 0]
    logits = torch.logit(p).requires_grad_()
    expected_reward = (chances(actions, torch.sigmoid(logits)) * rewards).sum()
    (exact,) = torch.autograd.grad(expected_reward, logits)

    count = 40_000
    drawn = sample_actions(p, count, torch.Generator().manual_seed(1))
    row = (drawn @ torch.tensor([8.0, 4, 2, 1], dtype=torch.float64)).long()
    assert torch.equal(actions[row], drawn)
    samples = log_probability_gradient(drawn, p) * rewards[row][:, None]
    error = samples.std(dim=0) / math.sqrt(count)
    assert bool(((samples.mean(dim=0) - exact).abs() < 4 * error).all())
    assert bool((exact.abs() > 4 * error).any())  # the test can tell it from zero


def test_gradient_reaches_every_agent() -> None:
    agents = PaperAgents(resnet_graph(), LAMBDA)
    before = agents.ranking()
    actions = torch.ones(7, 7) - torch.eye(7)  # image k drops channel k
    agents.learn(outcome(actions, torch.ones(7, dtype=torch.bool)), agents.probabilities(0), 0.0)
    moved = agents.ranking() - before
    assert bool((moved < 0).all())  # dropping was right, so keeping becomes less likely


def test_certain_agents_learn_nothing_from_keeping_everything() -> None:
    """Without a dropped channel every reward is zero."""
    agents = PaperAgents(resnet_graph(), LAMBDA)
    before = agents.ranking()
    agents.learn(outcome(torch.ones(4, 7), torch.tensor([True, False] * 2)), before, 0.0)
    torch.testing.assert_close(agents.ranking(), before, rtol=0, atol=0)


def test_residual_stream_is_one_policy() -> None:
    """Agents between the convolutions of a block, and one layer for the stream."""
    graph = resnet_graph()
    assert sorted(group.producers for group in graph.groups) == [
        ("block1.conv1",),
        ("block2.conv1",),
        ("stem", "block1.conv2", "block2.conv2"),
    ]
    agents = PaperAgents(graph, LAMBDA)
    stream = graph.groups[0].classes
    actions = torch.ones(1, 7)
    actions[0, stream[0]] = 0
    agents.learn(outcome(actions, torch.tensor([True])), agents.probabilities(0), 0.0)
    moved = agents.ranking() != 6.9
    assert np.flatnonzero(moved.numpy()).tolist() == sorted(stream)


def test_vgg_has_agents_before_each_convolution_and_on_linear_layers() -> None:
    model = build_model("vgg16-decore", 10)
    graph = channel_graph(model, torch.randn(1, 3, 32, 32))
    mixers = [n for n, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    masked = {c.module for c in graph.consumers if (c.classes >= 0).all()}
    assert masked == set(mixers[1:])  # all but the one that reads the picture
    assert [len(group.classes) for group in graph.groups] == [
        *(64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512),
        512,  # the hidden linear layer
    ]


def test_state_round_trip() -> None:
    graph = resnet_graph()
    first, second = PaperAgents(graph, LAMBDA), PaperAgents(graph, LAMBDA)
    batch = outcome(torch.ones(7, 7) - torch.eye(7), torch.ones(7, dtype=torch.bool))
    first.learn(batch, first.probabilities(0), 0.0)
    second.load_state_dict(first.state_dict())
    for agents in (first, second):
        agents.learn(batch, agents.probabilities(0), 0.0)
    assert torch.equal(first.ranking(), second.ranking())
