"""Agents that know what their channels are worth.

The worth of an agent is the rise of the loss when its channels go: E[f | dropped] - E[f | kept].
For a Bernoulli policy p = sigmoid(logit) that is minus the natural gradient of the expected loss
(Amari 1998): the plain one, -worth x p (1 - p), over the Fisher information p (1 - p). With the
price of an agent, the entropy H and a temperature T, E[f] + lambda E[cost] - T H is stationary
where logit = (worth - lambda x price) / T: each agent decides by what its channels are worth to the
others' policy, and lambda is the budget's. Here the logit is log(worth / price) - log(lambda), over
the temperature: the same agents stay, at any scale of the loss.

So nothing is stepped along a gradient. Every batch adds to what is known of the worths, and the
prior counts as long as little is known.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compressor.cost import Limits
from compressor.decore.budget import BudgetAgents, BudgetSettings, cost_gradient
from compressor.decore.estimators import trapezoid
from compressor.decore.outcome import Outcome

TRUST = 1.0
"""The prior counts as much as an even agent, p (1 - p) = 1/4, in four batches."""

MEMORY = 5.0
"""What is known counts as 20 batches of an even agent at most: weights and policy change. Nothing
fades from an agent of which nothing new is seen."""

SPREAD = 0.7
"""Standard deviation of the logarithm of worth per price, as the prior has it."""

_LEAST = 1e-3
"""Of the typical worth per price: what an agent counts as that does harm."""


class ValueAgents(BudgetAgents):
    """Agents under a budget whose logits are the worth of their channels per price.

    The worth is estimated by the trapezoid rule (`estimators.Trapezoid`) from d loss / d action,
    which sees what an action does to the whole batch. The losses alone do not: batch norm mixes
    images, and an image that keeps what most others drop is punished for being unlike them.

    Args: see `BudgetAgents`; of the settings, those of the policy and the schedule count.
    """

    def __init__(
        self,
        prior: Tensor,
        limits: Limits,
        settings: BudgetSettings | None = None,
        agent_of: NDArray[np.int64] | None = None,
    ) -> None:
        super().__init__(prior, limits, settings, agent_of)
        self._worth = torch.zeros(self._agents, dtype=torch.float64)
        self._seen = torch.zeros(self._agents, dtype=torch.float64)
        self._logits = SPREAD * self._prior

    def learn(self, outcome: Outcome, probabilities: Tensor, progress: float) -> float:
        """Add one batch to what is known, and take the logits from it."""
        p = self._of_agents(probabilities.double())
        # Its expectation is -worth x p (1 - p).
        self._worth -= trapezoid(self._as_agents_see(outcome), p).mean(dim=0)
        self._seen += p * (1 - p)
        excess = (self._seen / MEMORY).clamp_min(1)
        self._worth /= excess
        self._seen /= excess
        price = self._joined(cost_gradient(self._limits, probabilities) * self._there)
        expected = price * (SPREAD * self._prior).exp()
        scale = float(self._worth.sum() / (self._seen @ expected).clamp_min(1e-30))
        if scale > 0:  # else the batches so far say nothing yet
            known = self._worth / scale + TRUST * expected
            per_price = known / (self._seen + TRUST) / price.clamp_min(1e-30)
            self._logits = per_price.clamp_min(_LEAST).log()
        return -float(outcome.losses.mean())

    def state_dict(self) -> dict[str, Any]:
        """Return what is known, the logits and what is left."""
        return {
            "worth": self._worth.clone(),
            "seen": self._seen.clone(),
            "logits": self._logits.clone(),
            "there": self._there.clone(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to a saved state."""
        for name in ("worth", "seen", "logits", "there"):
            getattr(self, f"_{name}").copy_(state[name])

    def _agent_logits(self) -> Tensor:
        return self._logits
