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
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compressor.cost import Limits
from compressor.decore.estimators import ESTIMATORS
from compressor.decore.outcome import Outcome
from compressor.decore.policy import sample_actions, scheduled_load, shared_threshold
from compressor.decore.projection import class_step
from compressor.graph import ChannelGraph


class Agents(Protocol):
    """Logits, a policy made of them that says what happens to each class, a rule that learns."""

    def probabilities(self, progress: float) -> Tensor:
        """Return keep probabilities at a share of the search, shape (classes,)."""

    def sample(self, probabilities: Tensor, batch: int, generator: torch.Generator) -> Tensor:
        """Draw keep (1) or drop (0) for every image and class, shape (batch, classes)."""

    def ranking(self) -> Tensor:
        """Return the logits, shape (classes,): the higher, the longer a channel is kept."""

    def learn(self, outcome: Outcome, probabilities: Tensor, progress: float) -> float:
        """Update the logits from one batch; return the mean reward."""

    def forget(self, gone: Tensor) -> None:
        """Never keep these classes again, bool, shape (classes,): their channels are cut out."""

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

    estimator: str = "trapezoid-control"
    policy_rate: float = 0.005
    first_temperature: float = 0.2
    last_temperature: float = 0.03
    descent_share: float = 0.6


class BudgetAgents:
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
        self._learned = torch.zeros(self._agents, dtype=torch.float64, requires_grad=True)
        self._optimizer = torch.optim.Adam([self._learned], lr=self._settings.policy_rate)
        self._estimate = ESTIMATORS[self._settings.estimator](self._agents)

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

    def learn(self, outcome: Outcome, probabilities: Tensor, progress: float) -> float:
        """Take one Adam step along the policy gradient of the loss, at equal expected cost."""
        p, temperature = self._of_agents(probabilities.double()), self.temperature(progress)
        gradient = self._estimate(self._as_agents_see(outcome), p) / temperature
        slope = p * (1 - p) / temperature  # dp / dlogit
        price = self._joined(cost_gradient(self._limits, probabilities) * self._there) * slope
        # Move within the surface of equal cost; the threshold takes care of the cost itself.
        gradient = gradient - price * (gradient @ price) / (price @ price).clamp_min(1e-30)
        self._learned.grad = gradient
        self._optimizer.step()
        return -float(outcome.losses.mean())

    def forget(self, gone: Tensor) -> None:
        """Give channels that are cut out a logit that no threshold reaches."""
        self._there &= ~gone

    def state_dict(self) -> dict[str, Any]:
        """Return what was learned, optimizer, running means and what is left."""
        return {
            "learned": self._learned.detach().clone(),
            "optimizer": self._optimizer.state_dict(),
            "memory": {name: value.clone() for name, value in self._estimate.memory.items()},
            "there": self._there.clone(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to a saved state."""
        self._learned.data.copy_(state["learned"])
        # A copy: the optimizer would go on writing into the given tensors.
        self._optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))
        for name, value in self._estimate.memory.items():
            value.copy_(state["memory"][name])
        self._there.copy_(state["there"])

    def _class_logits(self) -> Tensor:
        return self._agent_logits()[self._agent_of].masked_fill(~self._there, -torch.inf)

    def _agent_logits(self) -> Tensor:
        return self._prior + self._learned.detach()

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


def step_agents(
    prior: NDArray[np.float64], graph: ChannelGraph, channel_step: int
) -> NDArray[np.int64]:
    """Give each whole step of a group's width one agent, shape (classes,).

    A runtime gains nothing from less than a step, and fewer agents see more of their own effect.
    Channels of similar importance share one.

    Args:
        prior: importance of every class, shape (classes,).
        channel_step: multiple that widths are rounded to.
    """
    agent_of = np.empty(graph.class_count, dtype=np.int64)
    count = 0
    for group in graph.groups:
        best_first = group.classes[np.argsort(-prior[group.classes], kind="stable")]
        step = class_step(group, channel_step)
        agent_of[best_first] = count + np.arange(len(best_first)) // step
        count = int(agent_of[best_first].max()) + 1
    return agent_of


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
