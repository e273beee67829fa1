"""Choices that agents learn: DECORE, in our default form and in the paper's."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from compressor.cost import as_tensor
from compressor.decore.agents import Agents, BudgetAgents, BudgetSettings, step_agents
from compressor.decore.paper import DEFAULT_PENALTY, PaperAgents
from compressor.decore.projection import project, thresholded
from compressor.decore.search import SearchResult, search
from compressor.decore.taylor import taylor_scores
from compressor.methods.method import Choice, PruneTask


@dataclass(frozen=True)
class Decore:
    """Agents that meet the budget by construction.

    Attributes:
        settings: constants of the agents.
        agents_of_steps: one agent for each whole step of a width, instead of one for each class.
        with_means: dropped channels give their means while the agents learn, as they do once batch
            norms are recalibrated.
        cut_while_learning: remove channels physically as soon as their agents are certain.
    """

    settings: BudgetSettings = field(default_factory=BudgetSettings)
    agents_of_steps: bool = True
    with_means: bool = True
    cut_while_learning: bool = True

    def __call__(self, task: PruneTask) -> Choice:
        """Search from a Taylor prior; round what the agents want to the runtime's steps."""
        start = task.start
        prior = taylor_scores(
            start.model, start.graph, task.images, task.compute, with_means=self.with_means
        )
        agent_of = None
        if self.agents_of_steps:
            agent_of = step_agents(prior.numpy(), task.graph, task.channel_step)
        agents = BudgetAgents(prior, task.limits, self.settings, agent_of)
        step = task.channel_step if self.cut_while_learning else None
        found = _search(task, agents, step, with_means=self.with_means)
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
        found = _search(task, PaperAgents(task.graph, self.penalty), None)
        keep = thresholded(found.probabilities, task.graph)
        if float(task.limits.load(as_tensor(keep))) <= 1.0:
            # Looser limits bring nothing back that the rule has dropped.
            return Choice(found.left, keep, np.where(keep, found.ranking, -np.inf))
        keep = project(found.ranking, task.graph, task.limits, task.channel_step)
        return Choice(found.left, keep, found.ranking)


def _search(
    task: PruneTask, agents: Agents, channel_step: int | None, *, with_means: bool = False
) -> SearchResult:
    return search(
        task.start.model,
        task.graph,
        agents,
        task.limits,
        task.images,
        task.recipe,
        task.compute,
        seed=task.seed,
        checkpoint=task.checkpoint,
        observer=task.observer,
        teacher=task.teacher,
        channel_step=channel_step,
        with_means=with_means,
    )
