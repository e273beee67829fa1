"""Estimators of d E[loss] / d logit for Bernoulli agents, p = sigmoid(logit).

All take one batch with an action of its own for every image. They differ in what they know beside
the loss: nothing, the other images' losses, or d loss / d action, which the backward pass for the
weights gives at no further cost.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import torch
from torch import Tensor

from compressor.decore.outcome import Outcome
from compressor.decore.policy import log_probability_gradient

_MEMORY = 0.98
"""Decay of running means: about 50 batches."""


class Estimator(Protocol):
    """Turns a batch into a gradient; may remember earlier batches."""

    memory: dict[str, Tensor]

    def __call__(self, outcome: Outcome, probabilities: Tensor) -> Tensor:
        """Return the gradient of the expected loss, shape (agents,), float64.

        Args:
            outcome: one batch; N >= 2.
            probabilities: p under which its actions were drawn, shape (agents,).
        """


class Reinforce:
    """Williams 1992: E[f(a) (a - p)], no baseline."""

    def __init__(self, agents: int) -> None:
        self.memory: dict[str, Tensor] = {}

    def __call__(self, outcome: Outcome, probabilities: Tensor) -> Tensor:
        score = log_probability_gradient(outcome.actions.double(), probabilities.double())
        return outcome.losses.double() @ score / len(score)


class LeaveOneOut:
    """REINFORCE with the mean of the other images as baseline (Kool et al. 2019).

    The loss of the unpruned network on the same image is subtracted first: an image that is hard
    for both says nothing about channels. Neither depends on the image's own action: unbiased.
    """

    def __init__(self, agents: int) -> None:
        self.memory: dict[str, Tensor] = {}

    def __call__(self, outcome: Outcome, probabilities: Tensor) -> Tensor:
        score = log_probability_gradient(outcome.actions.double(), probabilities.double())
        return _left_out((outcome.losses - outcome.reference_losses).double(), score)


class TaylorControl:
    """Leave-one-out on what a linear model of the loss leaves unexplained, plus that model's
    exact gradient (MuProp, Gu et al. 2016, https://arxiv.org/abs/1511.05176).

    The slope is the running mean of d loss / d action of earlier batches, so it doesn't depend on
    this one: E[(f(a) - b - t (a - p)) (a - p)] + t p (1 - p), unbiased for every t.
    """

    def __init__(self, agents: int) -> None:
        self.memory = {"slope": torch.zeros(agents, dtype=torch.float64)}

    def __call__(self, outcome: Outcome, probabilities: Tensor) -> Tensor:
        p = probabilities.double()
        score = log_probability_gradient(outcome.actions.double(), p)
        slope = self.memory["slope"]
        advantage = (outcome.losses - outcome.reference_losses).double() - score @ slope
        gradient = _left_out(advantage, score) + slope * p * (1 - p)
        _remember(slope, outcome.mask_gradients.double().mean(dim=0))
        return gradient


class Trapezoid:
    """The trapezoid rule between dropped and kept: E[|a - p| f'(a)] / 2.

    What an agent wants to know is p (1 - p) (E[f | kept] - E[f | dropped]). The fundamental theorem
    gives f(1) - f(0) as the integral of f' over the action, the trapezoid rule gives that as
    (f'(0) + f'(1)) / 2, and both ends are seen, since a dropped channel has a derivative too.
    Weighting them by how rarely they are drawn gives |a - p|. Biased by the third derivative of the
    loss in one action, and nearly free of noise.
    """

    def __init__(self, agents: int) -> None:
        self.memory: dict[str, Tensor] = {}

    def __call__(self, outcome: Outcome, probabilities: Tensor) -> Tensor:
        return trapezoid(outcome, probabilities.double()).mean(dim=0)


class TrapezoidControl:
    """The trapezoid rule of earlier batches as control variate of the leave-one-out estimator.

    Unbiased like `TaylorControl`, with a slope that fits the finite difference instead of the
    derivative at the masked network.
    """

    def __init__(self, agents: int) -> None:
        zeros = torch.zeros(agents, dtype=torch.float64)
        self.memory = {"rise": zeros, "doubt": zeros.clone()}

    def __call__(self, outcome: Outcome, probabilities: Tensor) -> Tensor:
        p = probabilities.double()
        score = log_probability_gradient(outcome.actions.double(), p)
        slope = self.memory["rise"] / self.memory["doubt"].clamp_min(1e-9)
        advantage = (outcome.losses - outcome.reference_losses).double() - score @ slope
        gradient = _left_out(advantage, score) + slope * p * (1 - p)
        _remember(self.memory["rise"], trapezoid(outcome, p).mean(dim=0))
        _remember(self.memory["doubt"], p * (1 - p))
        return gradient


ESTIMATORS: Mapping[str, Callable[[int], Estimator]] = {
    "reinforce": Reinforce,
    "leave-one-out": LeaveOneOut,
    "taylor-control": TaylorControl,
    "trapezoid": Trapezoid,
    "trapezoid-control": TrapezoidControl,
}


def trapezoid(outcome: Outcome, p: Tensor) -> Tensor:
    """Return |a - p| f'(a) / 2 of each taught image, shape (M, agents); see `Trapezoid`."""
    actions = outcome.actions[: len(outcome.mask_gradients)]
    score = log_probability_gradient(actions.double(), p)
    return 0.5 * score.abs() * outcome.mask_gradients.double()


def _left_out(advantage: Tensor, score: Tensor) -> Tensor:
    """Mean of (advantage - mean of the others) x score over the batch, shape (agents,)."""
    count = len(advantage)
    baseline = (advantage.sum() - advantage) / (count - 1)
    return (advantage - baseline) @ score / count


def _remember(mean: Tensor, value: Tensor) -> None:
    mean.mul_(_MEMORY).add_(value, alpha=1 - _MEMORY)
