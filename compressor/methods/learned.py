"""Choices that agents learn: DECORE, in our default form and in the paper's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from compressor.cost import as_tensor
from compressor.decore.agents import GradientAgents, step_agents
from compressor.decore.budget import BudgetAgents, BudgetSettings
from compressor.decore.paper import DEFAULT_PENALTY, PaperAgents
from compressor.decore.projection import project, thresholded
from compressor.methods.agent_search import search
from compressor.methods.method import Choice, PruneTask
from compressor.methods.scores import taylor_prior

Prior = Callable[[PruneTask, bool], Tensor]
"""What the loss is expected to rise by when each class goes, shape (classes,), float64; whether a
class that goes leaves its means."""


@dataclass(frozen=True)
class Decore:
    """Agents that meet the budget by construction.

    Attributes:
        settings: constants of the agents.
        agents_of_steps: one agent for each whole step of a width, instead of one for each class.
        with_means: dropped channels give their means while the agents learn, as they do once batch
            norms are recalibrated.
        cut_while_learning: remove channels physically as soon as their agents are certain.
        prior: what the agents begin with.
        agents: how they learn.
    """

    settings: BudgetSettings = field(default_factory=BudgetSettings)
    agents_of_steps: bool = True
    with_means: bool = True
    cut_while_learning: bool = True
    prior: Prior = taylor_prior
    agents: type[BudgetAgents] = GradientAgents

    def __call__(self, task: PruneTask) -> Choice:
        """Search from a prior; round what the agents want to the runtime's steps."""
        prior = self.prior(task, self.with_means)
        agent_of = None
        if self.agents_of_steps:
            agent_of = step_agents(prior.numpy(), task.graph, task.channel_step)
        agents = self.agents(prior, task.limits, self.settings, agent_of)
        found = search(
            task, agents, cut_while_learning=self.cut_while_learning, with_means=self.with_means
        )
        keep = project(found.ranking, task.graph, task.limits, task.channel_step)
        return Choice(found.left, keep, found.ranking)


@dataclass(frozen=True)
class Paper:
    """The published rule; projected only where its own threshold misses the limits.

    Attributes:
        penalty: lambda, the price of a wrong answer.
    """

    penalty: float = DEFAULT_PENALTY

    def __call__(self, task: PruneTask) -> Choice:
        """Search with the paper's agents, drop what ends below p = 0.5."""
        found = search(task, PaperAgents(task.graph, self.penalty))
        keep = thresholded(found.probabilities, task.graph)
        if float(task.limits.load(as_tensor(keep))) <= 1.0:
            # Looser limits bring nothing back that the rule has dropped.
            return Choice(found.left, keep, np.where(keep, found.ranking, -np.inf))
        keep = project(found.ranking, task.graph, task.limits, task.channel_step)
        return Choice(found.left, keep, found.ranking)
