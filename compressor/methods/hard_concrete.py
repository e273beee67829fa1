"""Gates that are learned with the weights: L0 regularization with hard-concrete gates.

Louizos et al. 2018 (https://arxiv.org/abs/1712.01312), section 2.2. A gate is a random number in
[0, 1] that is exactly 0 or exactly 1 with positive probability, and yet has a gradient.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from compressor.decore.budget import cost_gradient
from compressor.decore.policy import scheduled_load
from compressor.decore.projection import project
from compressor.masks import ChannelMasks
from compressor.methods.joint import Weights, learn
from compressor.methods.method import Choice, PruneTask

TEMPERATURE = 2 / 3
"""beta of the paper."""

STRETCH = (-0.1, 1.1)
"""gamma and zeta of the paper: the interval that a concrete variable in (0, 1) is stretched to."""

_LONGEST_STEP = 1.0
"""Of a logit, in one batch: where nearly all gates are shut or open, cost hardly has a slope."""

_CHEAPEST = 0.1
"""What channels cost at the least, in means, where a step is divided by it."""


@dataclass(frozen=True)
class HardConcrete:
    """One gate per class of channels, under a price on the expected cost.

    The paper fixes the price lambda and counts weights. Here the cost is that of the limits, and
    the price mu is chosen at every step so that, to first order, the expected cost lands on the
    schedule of our agents (`policy.scheduled_load`).

    Attributes:
        first_logit: log alpha of all gates at the start; 2 leaves 97.5 % of them open.
        travel: logits that a gate moves in one search if its gradient is always the root mean
            square of all gates' and always points the same way; it stands for the paper's step
            size, for any number of steps. High enough that gates end open or shut: with half-open
            ones the weights would train as another network than the one that remains.
        descent_share: share of the search in which the expected cost falls to the limits.
    """

    first_logit: float = 2.0
    travel: float = 60.0
    descent_share: float = 0.6

    def __call__(self, task: PruneTask) -> Choice:
        """Train weights and gates together, rank by the gates' logits."""
        gates = _GateTraining(task, self)
        learn(task, gates)
        task.start.model.eval()
        ranking = np.full(task.graph.class_count, -np.inf)
        ranking[task.start.classes] = gates.logits.numpy()
        keep = project(ranking, task.graph, task.limits, task.channel_step)
        return Choice(task.start, keep, ranking)


def sample_gates(logits: Tensor, batch: int, generator: torch.Generator) -> Tensor:
    """Draw gates z = min(1, max(0, s)) with gradient, shape (batch, gates).

    s = sigmoid((log u - log(1 - u) + log alpha) / beta) * (zeta - gamma) + gamma, u uniform.

    Args:
        logits: log alpha, shape (gates,).
        generator: on the CPU, so that all devices draw the same.
    """
    low, high = STRETCH
    uniform = torch.rand(batch, len(logits), generator=generator).clamp(1e-6, 1 - 1e-6)
    noise = (uniform.log() - (1 - uniform).log()).to(logits)
    stretched = torch.sigmoid((noise + logits) / TEMPERATURE) * (high - low) + low
    return stretched.clamp(0.0, 1.0)


def open_probabilities(logits: Tensor) -> Tensor:
    """Return the chance that each gate isn't zero, sigmoid(log alpha - beta log(-gamma / zeta)).

    Their sum is the expected L0 norm of the gates.
    """
    low, high = STRETCH
    return torch.sigmoid(logits - TEMPERATURE * math.log(-low / high))


class _GateTraining:
    """Weights and gates; `logits` holds log alpha, shape (classes that are there,), float64."""

    def __init__(self, task: PruneTask, settings: HardConcrete) -> None:
        self._task, self._limits, self._settings = task, task.limits, settings
        self._weights = Weights(task)
        count = task.start.graph.class_count
        self.logits = torch.full((count,), settings.first_logit, dtype=torch.float64)
        self._mean_square = torch.zeros((), dtype=torch.float64)
        self._seen = 0
        self._there = torch.from_numpy(task.start.classes)
        everything = self._whole(torch.ones(count, dtype=torch.float64))
        self._first_load = float(self._limits.load(everything))
        self._rate = settings.travel / max(task.recipe.epochs * task.images.steps_per_epoch, 1)

    def step(
        self, x: Tensor, labels: Tensor, progress: float, rate: float, generator: torch.Generator
    ) -> Mapping[str, float]:
        logits = self.logits.to(x.device, torch.float32).requires_grad_()
        with ChannelMasks(self._weights.model, self._task.start.graph) as masks:
            masks.set(sample_gates(logits, len(x), generator))
            loss = self._weights.loss(x, labels)
        self._weights.update(loss, rate)
        assert logits.grad is not None
        price = self._move(logits.grad.cpu().double(), progress)
        return {"loss": float(loss.detach()), "price": price}

    def standing(self, progress: float) -> Mapping[str, float]:
        """Return the expected cost against the limits."""
        opened = open_probabilities(self.logits)
        return {"expected_load": float(self._limits.load(self._whole(opened)))}

    def _move(self, gradient: Tensor, progress: float) -> float:
        """Step down loss + mu x expected load; return mu.

        The step of a gate is -rate x (g + mu c) / d: g and c are the slopes of loss and load, and d
        is what its channels cost, so that all gates fall alike where the loss has no say (the
        paper's Adam divides likewise). It changes the load by c times it. Mu is the multiplier for
        which that ends on the schedule, and never negative: nothing is paid for being dear.
        """
        opened = open_probabilities(self.logits)
        load = float(self._limits.load(self._whole(opened)))
        costs = cost_gradient(self._limits, self._whole(opened))[self._there]
        slope = costs * opened * (1 - opened)
        divisor = (costs / costs.mean()).clamp_min(_CHEAPEST)
        gradient = gradient / divisor
        self._seen += 1
        self._mean_square += (gradient.square().mean() - self._mean_square) / self._seen
        gradient = gradient / self._mean_square.sqrt().clamp_min(1e-12)
        price = 0.0
        if self._limits.limits:
            wanted = scheduled_load(self._first_load, progress, self._settings.descent_share)
            needed = (load - wanted) / self._rate - float(slope @ gradient)
            price = max(0.0, needed / max(float(slope @ (slope / divisor)), 1e-30))
        step = self._rate * (gradient + price * slope / divisor)
        self.logits -= step.clamp(-_LONGEST_STEP, _LONGEST_STEP)
        return price

    def _whole(self, probabilities: Tensor) -> Tensor:
        """Put what is there into the whole network's order; zero for what is gone."""
        whole = torch.zeros(self._task.graph.class_count, dtype=torch.float64)
        whole[self._there] = probabilities
        return whole

    def state_dict(self) -> dict[str, Any]:
        return {
            "weights": self._weights.state_dict(),
            "logits": self.logits,
            "mean_square": self._mean_square,
            "seen": self._seen,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._weights.load_state_dict(state["weights"])
        self.logits = state["logits"].clone()
        self._mean_square, self._seen = state["mean_square"].clone(), int(state["seen"])
