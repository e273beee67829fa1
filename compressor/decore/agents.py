"""The default agents: policy gradient under a budget, from a Taylor prior.

Differences from the paper (paper.py) and where they come from:

* additive objective: expected loss, with the expected cost held on a schedule, instead of a product
  reward; one threshold shared by all agents, found by bisection, meets the budget at every step;
* an estimator with less noise (estimators.py);
* logits start from the squared Taylor score per cost (Molchanov et al. 2019,
  https://arxiv.org/abs/1906.10771) instead of 6.9;
* a temperature that falls, so that the policy ends sharp and the weights train as the net that
  remains.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from compressor.cost import Limits
from compressor.decore.estimators import ESTIMATORS
from compressor.decore.outcome import Outcome
from compressor.decore.policy import scheduled_load, shared_threshold


class Agents(Protocol):
    """One logit per class of channels, a policy made of them, and a rule that learns."""

    def probabilities(self, progress: float) -> Tensor:
        """Return keep probabilities at a share of the search, shape (agents,)."""

    def ranking(self) -> Tensor:
        """Return the logits, shape (agents,): the higher, the longer a channel is kept."""

    def learn(self, outcome: Outcome, probabilities: Tensor, progress: float) -> float:
        """Update the logits from one batch; return the mean reward."""

    def forget(self, gone: Tensor) -> None:
        """Never keep these classes again, bool, shape (agents,): their channels are cut out."""

    def state_dict(self) -> dict[str, Any]:
        """Return everything that a resumed search needs."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to a saved state."""


@dataclass(frozen=True)
class BudgetSettings:
    """Constants of the default agents.

    Attributes:
        estimator: key of `estimators.ESTIMATORS`.
        policy_rate: Adam's step on the logits, which are measured in standard deviations of the
            prior.
        first_temperature, last_temperature: softness of the policy, falling geometrically.
        descent_share: share of the search in which the expected cost falls to the budget.
    """

    estimator: str = "taylor-control"
    policy_rate: float = 0.01
    first_temperature: float = 0.3
    last_temperature: float = 0.03
    descent_share: float = 0.6


class BudgetAgents:
    """Agents whose expected cost follows a schedule down to the limits.

    Args:
        prior: importance of every class before the search, positive, shape (agents,): the loss that
            its removal is expected to cost.
        limits: the budget; without any limit nothing is dropped.
        settings: constants.
    """

    def __init__(
        self, prior: Tensor, limits: Limits, settings: BudgetSettings | None = None
    ) -> None:
        self._limits = limits
        self._settings = settings or BudgetSettings()
        everything = torch.ones(len(prior), dtype=torch.float64)
        self._first_load = float(limits.load(everything))
        logits = standardized_log(prior.double() / cost_gradient(limits, everything))
        self._logits = logits.requires_grad_()
        self._optimizer = torch.optim.Adam([self._logits], lr=self._settings.policy_rate)
        self._estimate = ESTIMATORS[self._settings.estimator](len(prior))

    def temperature(self, progress: float) -> float:
        """Return the softness of the policy at a share of the search."""
        first, last = self._settings.first_temperature, self._settings.last_temperature
        return first * (last / first) ** min(progress, 1.0)

    def scheduled_load(self, progress: float) -> float:
        """Return the wanted ratio of expected cost to budget at a share of the search."""
        return scheduled_load(self._first_load, progress, self._settings.descent_share)

    def probabilities(self, progress: float) -> Tensor:
        """Return sigmoid((logit - threshold) / temperature) whose expected cost is on schedule."""
        logits, temperature = self._logits.detach(), self.temperature(progress)
        load = self.scheduled_load(progress)
        threshold = shared_threshold(logits, temperature, self._limits, load)
        return torch.sigmoid((logits - threshold) / temperature)

    def ranking(self) -> Tensor:
        """Return the logits."""
        return self._logits.detach().clone()

    def learn(self, outcome: Outcome, probabilities: Tensor, progress: float) -> float:
        """Take one Adam step along the policy gradient of the loss, at equal expected cost."""
        slope = probabilities * (1 - probabilities) / self.temperature(progress)  # dp / dlogit
        gradient = self._estimate(outcome, probabilities) / self.temperature(progress)
        price = cost_gradient(self._limits, probabilities) * slope
        # Move within the surface of equal cost; the threshold takes care of the cost itself.
        gradient = gradient - price * (gradient @ price) / (price @ price).clamp_min(1e-30)
        self._logits.grad = gradient
        self._optimizer.step()
        return -float(outcome.losses.mean())

    def forget(self, gone: Tensor) -> None:
        """Give the agents of channels that are cut out a logit that no threshold reaches."""
        self._logits.data[gone] = -torch.inf

    def state_dict(self) -> dict[str, Any]:
        """Return logits, optimizer and running means."""
        return {
            "logits": self._logits.detach().clone(),
            "optimizer": self._optimizer.state_dict(),
            "memory": {name: value.clone() for name, value in self._estimate.memory.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to a saved state."""
        self._logits.data.copy_(state["logits"])
        # A copy: the optimizer would go on writing into the given tensors.
        self._optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))
        for name, value in self._estimate.memory.items():
            value.copy_(state["memory"][name])


def cost_gradient(limits: Limits, probabilities: Tensor) -> Tensor:
    """Return d load / d p of every agent, shape (agents,); ones where there is no limit."""
    at = probabilities.detach().double().requires_grad_()
    load = limits.load(at)
    if not limits.limits:
        return torch.ones_like(at)
    (gradient,) = torch.autograd.grad(load, at)
    # A class that costs nothing in the binding limit (only activations, say) must not divide by
    # zero.
    return gradient.clamp_min(float(gradient.max()) * 1e-6)


def standardized_log(scores: Tensor) -> Tensor:
    """Return log scores with mean 0 and standard deviation 1; zero scores go lowest."""
    positive = scores[scores > 0]
    floor = float(positive.min()) / 10 if len(positive) else 1.0
    logs = scores.clamp_min(floor).log()
    return (logs - logs.mean()) / logs.std().clamp_min(1e-6)
