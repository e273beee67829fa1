"""Batch-norm scales that are trained to be sparse, then ranked: network slimming.

Liu et al. 2017 (https://arxiv.org/abs/1708.06519), equation 1: the loss, plus the L1 norm of all
batch-norm scales times a constant.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from compressor.graph import ChannelGraph
from compressor.methods.joint import Weights, learn
from compressor.methods.method import Choice, PruneTask
from compressor.methods.one_shot import globally, norm_scale
from compressor.methods.scores import norm_slices


@dataclass(frozen=True)
class SparseScale:
    """Train for the search's epochs under an L1 penalty on the scales, then rank by scale.

    The penalty of a class of channels is the mean |scale| of its batch norms, which is what
    `scores.norm_scales` ranks: every class is pulled equally hard, whatever it costs and however
    many batch norms it passes.

    Attributes:
        strength: price of one unit of scale. The paper has 1e-4 for 160 epochs and up; a search is
            shorter, so it pulls harder: a scale that the loss doesn't hold moves by
            rate x strength / (1 - momentum) a step, 0.8 in 8 epochs of 391 steps at rate 0.05.
    """

    strength: float = 5e-4

    def __call__(self, task: PruneTask) -> Choice:
        """Train in place and choose.

        Raises:
            InputError: the network has no batch norm with a scale.
        """
        norm_scale(task)  # fails before hours of training, not after them
        learn(task, _SparseTraining(task, self.strength))
        task.start.model.eval()
        return globally(norm_scale)(task)


class ScalePenalty:
    """The sum over all classes of the mean |scale| of their batch norms, with gradient."""

    def __init__(self, model: nn.Module, graph: ChannelGraph) -> None:
        found = norm_slices(model, graph)
        count = torch.zeros(graph.class_count)
        for cut, _ in found:
            free = torch.from_numpy(cut.classes[cut.classes >= 0])
            count.index_add_(0, free, torch.ones(len(free)))
        # Fixed channels, class -1, read the last entry: nobody may drop them, so nothing pulls.
        shares = torch.cat((1 / count.clamp_min(1), torch.zeros(1)))
        self._terms = [
            (scale, shares[torch.from_numpy(cut.classes)].to(scale.device)) for cut, scale in found
        ]

    def __call__(self) -> Tensor:
        """Return the penalty of the scales as they are now, a scalar."""
        return torch.stack([(scale.abs() * share).sum() for scale, share in self._terms]).sum()


class _SparseTraining:
    def __init__(self, task: PruneTask, strength: float) -> None:
        self._weights = Weights(task)
        self._penalty = ScalePenalty(self._weights.model, task.start.graph)
        self._strength, self._classes = strength, task.start.graph.class_count

    def step(
        self, x: Tensor, labels: Tensor, progress: float, rate: float, generator: torch.Generator
    ) -> Mapping[str, float]:
        loss, penalty = self._weights.loss(x, labels), self._penalty()
        self._weights.update(loss + self._strength * penalty, rate)
        return {"loss": float(loss.detach()), "scale": float(penalty.detach()) / self._classes}

    def standing(self, progress: float) -> Mapping[str, float]:
        return {}

    def state_dict(self) -> dict[str, Any]:
        return self._weights.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._weights.load_state_dict(state)
