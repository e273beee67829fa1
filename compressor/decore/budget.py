"""What agents under a budget have in common: a policy whose expected cost is on a schedule.

A subclass says what the agents' logits are and how a batch changes them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compressor.cost import Limits
from compressor.decore.outcome import Outcome
from compressor.decore.policy import sample_actions, scheduled_load, shared_threshold


@dataclass(frozen=True)
class BudgetSettings:
    """Constants of agents under a budget.

    Attributes:
        estimator: key of `estimators.ESTIMATORS`.
        policy_rate: Adam's step on the logits, which are measured in standard deviations of the
            prior.
        first_temperature, last_temperature: softness of the policy, falling geometrically.
        descent_share: share of the search in which the expected cost falls to the budget.
    """

    estimator: str = "trapezoid-control"
    policy_rate: float = 0.005
    first_temperature: float = 0.2
    last_temperature: float = 0.03
    descent_share: float = 0.6


class BudgetAgents(ABC):
    """Agents whose expected cost follows a schedule down to the limits.

    Args:
        prior: importance of every class before the search, positive, shape (classes,): the loss
            that its removal is expected to cost.
        limits: the budget; without any limit nothing is dropped.
        settings: constants.
        agent_of: agent of every class, shape (classes,), numbered from 0; one for each by default.
    """

    def __init__(
        self,
        prior: Tensor,
        limits: Limits,
        settings: BudgetSettings | None = None,
        agent_of: NDArray[np.int64] | None = None,
    ) -> None:
        classes = len(prior)
        self._limits = limits
        self._settings = settings or BudgetSettings()
        self._agent_of = torch.from_numpy(np.arange(classes) if agent_of is None else agent_of)
        self._agents = int(self._agent_of.max()) + 1
        self._there = torch.ones(classes, dtype=torch.bool)
        everything = torch.ones(classes, dtype=torch.float64)
        self._first_load = float(limits.load(everything))
        price = cost_gradient(limits, everything)
        self._prior = standardized_log(self._joined(prior.double()) / self._joined(price))
        self._within = standardized_log(prior.double() / price)

    def temperature(self, progress: float) -> float:
        """Return the softness of the policy at a share of the search."""
        first, last = self._settings.first_temperature, self._settings.last_temperature
        return first * (last / first) ** min(progress, 1.0)

    def scheduled_load(self, progress: float) -> float:
        """Return the wanted ratio of expected cost to budget at a share of the search."""
        return scheduled_load(self._first_load, progress, self._settings.descent_share)

    def probabilities(self, progress: float) -> Tensor:
        """Return sigmoid((logit - threshold) / temperature) whose expected cost is on schedule."""
        logits, temperature = self._class_logits(), self.temperature(progress)
        load = self.scheduled_load(progress)
        threshold = shared_threshold(logits, temperature, self._limits, load)
        return torch.sigmoid((logits - threshold) / temperature)

    def sample(self, probabilities: Tensor, batch: int, generator: torch.Generator) -> Tensor:
        """Draw actions, shape (batch, classes): classes of one agent go together."""
        drawn = sample_actions(self._of_agents(probabilities), batch, generator)
        return drawn[:, self._agent_of] * self._there

    def ranking(self) -> Tensor:
        """Return the logits; within an agent the prior decides, -inf for what is gone."""
        return self._class_logits() + 1e-9 * self._within

    @abstractmethod
    def learn(self, outcome: Outcome, probabilities: Tensor, progress: float) -> float:
        """Update the logits from one batch; return the mean reward."""

    def forget(self, gone: Tensor) -> None:
        """Give channels that are cut out a logit that no threshold reaches."""
        self._there &= ~gone

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Return everything that a resumed search needs."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to a saved state."""

    @abstractmethod
    def _agent_logits(self) -> Tensor:
        """Return the logits, float64, shape (agents,)."""

    def _class_logits(self) -> Tensor:
        return self._agent_logits()[self._agent_of].masked_fill(~self._there, -torch.inf)

    def _joined(self, values: Tensor) -> Tensor:
        """Add up over the classes of each agent: (..., classes) to (..., agents)."""
        total = values.new_zeros(*values.shape[:-1], self._agents)
        return total.index_add_(-1, self._agent_of, values)

    def _of_agents(self, values: Tensor) -> Tensor:
        """Pick what the classes of an agent that are left have in common; 0 where none is left."""
        picked = values.new_zeros(*values.shape[:-1], self._agents)
        picked[..., self._agent_of[self._there]] = values[..., self._there]
        return picked

    def _as_agents_see(self, outcome: Outcome) -> Outcome:
        return replace(
            outcome,
            actions=self._of_agents(outcome.actions),
            mask_gradients=self._joined(outcome.mask_gradients),
        )


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
