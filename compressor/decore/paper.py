"""The agents of the DECORE paper, rule by rule.

Alwani, Wang, Madhavan, "DECORE: Deep Compression with Reinforcement Learning", CVPR 2022,
https://arxiv.org/abs/2106.06091. Where descriptions of the method disagree, docs/decore.md says
what was chosen.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

from compressor.decore.outcome import Outcome
from compressor.decore.policy import log_probability_gradient, sample_actions
from compressor.graph import ChannelGraph

INITIAL_LOGIT = 6.9
"""p = sigmoid(6.9) = 0.999: everything is kept at first."""

POLICY_RATE = 0.01
"""Adam's learning rate for the logits."""

DEFAULT_PENALTY = 4.0
"""Lambda: mean reward is positive only above a train accuracy of lambda / (1 + lambda): 80 %."""

THRESHOLD = 0.5
"""Channels whose keep probability ends below it are dropped."""


class PaperAgents:
    """One logit per agent, product reward per layer, REINFORCE without baseline.

    Args:
        graph: its groups are the layers of the paper; a residual stream is one layer.
        penalty: lambda, the price of a wrong answer.
    """

    def __init__(self, graph: ChannelGraph, penalty: float = DEFAULT_PENALTY) -> None:
        self._logits = torch.full((graph.class_count,), INITIAL_LOGIT, dtype=torch.float64)
        self._logits.requires_grad_()
        self._optimizer = torch.optim.Adam([self._logits], lr=POLICY_RATE, maximize=True)
        self._layer_of = torch.from_numpy(graph.group_of_class())
        self._layers = len(graph.groups)
        self._penalty = penalty

    def probabilities(self, progress: float) -> Tensor:
        """Return sigmoid(logit); the paper's policy has no schedule."""
        return torch.sigmoid(self._logits.detach())

    def sample(self, probabilities: Tensor, batch: int, generator: torch.Generator) -> Tensor:
        """Draw every class apart."""
        return sample_actions(probabilities, batch, generator)

    def ranking(self) -> Tensor:
        """Return the logits."""
        return self._logits.detach().clone()

    def learn(self, outcome: Outcome, probabilities: Tensor, progress: float) -> float:
        """Take one Adam step up the policy gradient; return the mean over layers and images."""
        rewards = layer_rewards(
            outcome.actions, outcome.scores, self._layer_of, self._layers, self._penalty
        )
        score = log_probability_gradient(outcome.actions.double(), probabilities)
        self._logits.grad = (score * rewards[:, self._layer_of]).mean(dim=0)
        self._optimizer.step()
        return float(rewards.mean())

    def forget(self, gone: Tensor) -> None:
        """Give the agents of channels that are cut out a keep probability of 0."""
        self._logits.data[gone] = -torch.inf

    def state_dict(self) -> dict[str, Any]:
        """Return logits and optimizer."""
        return {"logits": self._logits.detach().clone(), "optimizer": self._optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to a saved state."""
        self._logits.data.copy_(state["logits"])
        # A copy: the optimizer would go on writing into the given tensors.
        self._optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))


def layer_rewards(
    actions: Tensor, scores: Tensor, layer_of: Tensor, layers: int, penalty: float
) -> Tensor:
    """Return R_i = R_C,i x R_acc of every image and layer, shape (N, layers), float64.

    R_C,i counts the channels that layer i dropped; R_acc is 1 for a right answer and -lambda for a
    wrong one, and in between along a line where a metric knows more than right and wrong.

    Args:
        actions: shape (N, agents).
        scores: 1 for right, 0 for wrong, shape (N,).
        layer_of: layer of every agent, int64, shape (agents,).
        layers: number of layers.
        penalty: lambda.
    """
    dropped = torch.zeros(len(actions), layers, dtype=torch.float64)
    dropped.index_add_(1, layer_of, 1 - actions.double())
    right = scores.double()
    accuracy = right - penalty * (1 - right)
    return dropped * accuracy[:, None]
