"""Every estimator against the exact gradient, enumerated over all actions."""

from __future__ import annotations

import math
from itertools import product

import pytest
import torch
from channel_nets import randomize
from decore_toys import TinyNet, ToyImages, all_actions, chances
from torch import Tensor
from torch.nn import functional as F

from compressor.decore.estimators import ESTIMATORS, Estimator
from compressor.decore.outcome import Outcome
from compressor.decore.policy import sample_actions
from compressor.graph import channel_graph
from compressor.masks import ChannelMasks

P = torch.tensor([0.3, 0.7, 0.5], dtype=torch.float64)
SLOPE = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
UNBIASED = [name for name in ESTIMATORS if name != "trapezoid"]


def quadratic(actions: Tensor) -> Tensor:
    return (actions @ SLOPE - 0.3).square() + 3 * actions[:, 0] * actions[:, 2]


def steep(actions: Tensor) -> Tensor:
    return (actions @ SLOPE).exp()


def outcome(actions: Tensor, losses_of, reference: Tensor | None = None) -> Outcome:
    at = actions.clone().requires_grad_()
    losses = losses_of(at)
    (gradients,) = torch.autograd.grad(losses.sum(), at)
    zeros = torch.zeros_like(losses)
    reference = zeros if reference is None else reference
    right = torch.ones(len(losses), dtype=torch.bool)
    return Outcome(actions, (losses + reference).detach(), reference, right, gradients)


def exact_gradient(losses_of, p: Tensor) -> Tensor:
    logits = torch.logit(p).requires_grad_()
    actions = all_actions(len(p))
    expected = (chances(actions, torch.sigmoid(logits)) * losses_of(actions)).sum()
    (gradient,) = torch.autograd.grad(expected, logits)
    return gradient


def experienced(name: str, losses_of) -> Estimator:
    """An estimator that has seen some batches already, as in the middle of a search."""
    estimator = ESTIMATORS[name](len(P))
    generator = torch.Generator().manual_seed(1)
    for _ in range(5):
        estimator(outcome(sample_actions(P, 6, generator), losses_of), P)
    return estimator


def expectation(name: str, losses_of, reference: Tensor | None = None) -> Tensor:
    """The mean over every batch of two images, 8 x 8 of them, each after the same past."""
    actions, mean = all_actions(3), torch.zeros(3, dtype=torch.float64)
    weights = chances(actions, P)
    for i, j in product(range(8), repeat=2):
        batch = outcome(actions[[i, j]], losses_of, reference)
        mean += weights[i] * weights[j] * experienced(name, losses_of)(batch, P)
    return mean


@pytest.mark.parametrize("name", UNBIASED)
@pytest.mark.parametrize("losses_of", [quadratic, steep])
def test_unbiased_over_all_pairs_of_actions(name: str, losses_of) -> None:
    expected = exact_gradient(losses_of, P)
    torch.testing.assert_close(expectation(name, losses_of), expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", ["leave-one-out", "taylor-control", "trapezoid-control"])
def test_images_that_are_hard_for_the_original_too_do_not_matter(name: str) -> None:
    reference = torch.tensor([0.9, -0.4], dtype=torch.float64)
    found = expectation(name, quadratic, reference)
    torch.testing.assert_close(found, exact_gradient(quadratic, P), rtol=1e-9, atol=1e-11)


def test_the_trapezoid_rule_is_exact_up_to_second_order_and_not_beyond() -> None:
    found = expectation("trapezoid", quadratic)
    torch.testing.assert_close(found, exact_gradient(quadratic, P), rtol=1e-9, atol=1e-11)
    beyond = (expectation("trapezoid", steep) - exact_gradient(steep, P)).abs()
    assert float(beyond.max()) > 0.01


@pytest.mark.parametrize("name", ["taylor-control", "trapezoid-control"])
def test_a_linear_loss_leaves_no_noise_once_its_slope_is_known(name: str) -> None:
    estimator = ESTIMATORS[name](3)
    generator = torch.Generator().manual_seed(0)

    def batch() -> Outcome:
        return outcome(sample_actions(P, 6, generator), lambda a: a @ SLOPE)

    for _ in range(1200):
        last = estimator(batch(), P)
    torch.testing.assert_close(last, SLOPE * P * (1 - P), atol=0.02, rtol=0)


def test_each_refinement_lowers_the_noise() -> None:
    def noise(name: str) -> float:
        estimator = ESTIMATORS[name](3)
        generator = torch.Generator().manual_seed(3)
        draws = [
            estimator(outcome(sample_actions(P, 8, generator), quadratic), P) for _ in range(900)
        ]
        return float(torch.stack(draws[500:]).var(dim=0).sum())

    names = ["reinforce", "leave-one-out", "trapezoid-control", "trapezoid"]
    found = [noise(name) for name in names]
    assert all(finer < 0.8 * coarser for coarser, finer in zip(found, found[1:], strict=False)), (
        found
    )


@pytest.mark.parametrize("name", UNBIASED)
def test_on_a_net(name: str) -> None:
    """Monte Carlo with real mask gradients, against enumeration of all 16 actions."""
    torch.manual_seed(0)
    model = randomize(TinyNet()).double().eval()
    x, labels = ToyImages().x[:1].double(), ToyImages().labels[:1]
    graph = channel_graph(model, x)
    p = torch.tensor([0.3, 0.6, 0.8, 0.5], dtype=torch.float64)

    def losses_of(actions: Tensor) -> Tensor:
        with ChannelMasks(model, graph) as masks:
            masks.set(actions)
            logits = model(x.expand(len(actions), -1, -1, -1))
        return F.cross_entropy(logits, labels.expand(len(actions)), reduction="none")

    table = outcome(all_actions(4), losses_of)  # every answer there is
    estimator, generator, draws = ESTIMATORS[name](4), torch.Generator().manual_seed(5), []
    for _ in range(1000):
        actions = sample_actions(p, 4, generator)
        rows = (actions @ torch.tensor([8.0, 4, 2, 1]).double()).long()
        batch = Outcome(
            actions,
            table.losses[rows],
            table.reference_losses[rows],
            table.scores[rows],
            table.mask_gradients[rows],
        )
        draws.append(estimator(batch, p))
    samples = torch.stack(draws)
    exact = exact_gradient(lambda actions: table.losses, p)
    error = samples.std(dim=0) / math.sqrt(len(samples))
    assert bool(((samples.mean(dim=0) - exact).abs() < 4 * error).all())
    if name != "reinforce":  # without a baseline the noise drowns the gradient of this net
        assert bool((exact.abs() > 4 * error).any())
