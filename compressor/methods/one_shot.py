"""Choices without a search: score every class once, keep the best."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compressor.decore.budget import cost_gradient
from compressor.decore.projection import project
from compressor.graph import ChannelGraph
from compressor.methods.method import Choice, Method, PruneTask
from compressor.methods.scores import norm_scales, taylor_prior, weight_norms

Score = NDArray[np.float64]


ScoreFunction = Callable[[PruneTask], Tensor]
"""Importance of the classes that are there, shape (start.graph.class_count,), float64."""


def l1(task: PruneTask) -> Tensor:
    """Mean magnitude of the weights that make a class."""
    return weight_norms(task.start.model, task.start.graph, order=1)


def l2(task: PruneTask) -> Tensor:
    """Root mean square of the weights that make a class."""
    return weight_norms(task.start.model, task.start.graph, order=2)


def norm_scale(task: PruneTask) -> Tensor:
    """Scale of the batch norms behind a class."""
    return norm_scales(task.start.model, task.start.graph)


def taylor(task: PruneTask, *, with_means: bool = False) -> Tensor:
    """Squared first-order change of the loss, per unit of the binding cost."""
    start = task.start
    scores = taylor_prior(task, with_means)
    there = torch.zeros(task.graph.class_count, dtype=torch.float64)
    there[torch.from_numpy(start.classes)] = 1.0
    return scores / cost_gradient(task.limits, there)[torch.from_numpy(start.classes)]


def random(task: PruneTask) -> Tensor:
    """Chance: what every other method has to beat."""
    generator = torch.Generator().manual_seed(task.seed)
    return torch.rand(len(task.start.classes), generator=generator, dtype=torch.float64)


def globally(score: ScoreFunction) -> Method:
    """Compare scores over all layers: one threshold for the whole network."""

    def method(task: PruneTask) -> Choice:
        return _choice(task, of_the_whole(score(task), task))

    return method


def uniformly(score: ScoreFunction) -> Method:
    """Keep the same share of every group, the best of each."""

    def method(task: PruneTask) -> Choice:
        ranking = rank_within_groups(of_the_whole(score(task), task), task.graph)
        return _choice(task, ranking)

    return method


def rank_within_groups(scores: Score, graph: ChannelGraph) -> Score:
    """Replace scores by quantiles within each group, in (0, 1): equal thresholds, equal shares."""
    ranking = np.empty(graph.class_count)
    for group in graph.groups:
        order = np.argsort(np.argsort(scores[group.classes], kind="stable"))
        ranking[group.classes] = (order + 0.5) / len(order)
    return np.where(np.isneginf(scores), -np.inf, ranking)


def of_the_whole(scores: Tensor, task: PruneTask) -> Score:
    """Put the scores of what is there into the whole network's order; -inf for what is gone."""
    whole = np.full(task.graph.class_count, -np.inf)
    whole[task.start.classes] = scores.numpy()
    return whole


def _choice(task: PruneTask, ranking: Score) -> Choice:
    keep = project(ranking, task.graph, task.limits, task.channel_step)
    return Choice(task.start, keep, ranking)
