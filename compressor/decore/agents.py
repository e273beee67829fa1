"""The default agents: policy gradient under a budget, from a Taylor prior.

Differences from the paper (paper.py) and where they come from:

* additive objective: expected loss, with the expected cost held on a schedule, instead of a product
  reward; one threshold shared by all agents, found by bisection, meets the budget at every step
  (budget.py);
* an estimator with less noise (estimators.py);
* logits start from the squared Taylor score per cost (Molchanov et al. 2019,
  https://arxiv.org/abs/1906.10771) instead of 6.9;
* a temperature that falls, so that the policy ends sharp and the weights train as the net that
  remains.
"""

from __future__ import annotations

import copy
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compressor.cost import Limits
from compressor.decore.budget import BudgetAgents, BudgetSettings, cost_gradient
from compressor.decore.estimators import ESTIMATORS
from compressor.decore.outcome import Outcome
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


class GradientAgents(BudgetAgents):
    """Agents that learn a logit each by policy gradient, on top of the prior's.

    Args: see `BudgetAgents`.
    """

    def __init__(
        self,
        prior: Tensor,
        limits: Limits,
        settings: BudgetSettings | None = None,
        agent_of: NDArray[np.int64] | None = None,
    ) -> None:
        super().__init__(prior, limits, settings, agent_of)
        self._learned = torch.zeros(self._agents, dtype=torch.float64, requires_grad=True)
        self._optimizer = torch.optim.Adam([self._learned], lr=self._settings.policy_rate)
        self._estimate = ESTIMATORS[self._settings.estimator](self._agents)

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

    def _agent_logits(self) -> Tensor:
        return self._prior + self._learned.detach()


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
