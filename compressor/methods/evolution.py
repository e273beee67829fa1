"""Evolutionary search of widths: how many channels of each group, the best ones of each.

In the manner of Liu et al. 2019, MetaPruning (https://arxiv.org/abs/1903.10258), section 3.2, and
Real et al. 2019 (https://arxiv.org/abs/1802.01548), tournaments: an individual is one width per
group; which channels a width means is settled by a Taylor ranking inside the group.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from compressor.decore.projection import project
from compressor.graph import Keep
from compressor.methods.masked_loss import MaskedLoss
from compressor.methods.method import Choice, PruneTask
from compressor.methods.one_shot import of_the_whole, taylor

_FORWARDS_PER_STEP = 3
"""A step of training costs one forward pass and about two of them backward."""

_TRIES = 8
"""Children that may equal somebody before one of them is let through unjudged."""

Widths = NDArray[np.float64]
Ranking = NDArray[np.float64]


@dataclass(frozen=True)
class Evolution:
    """Breed choices that all meet the limits; the one with the lowest masked loss wins.

    The search's epochs are spent on judging, at three forward passes for every step of training;
    weights stay as they are. The first individual is what the method `taylor` would choose, so the
    result is never worse than that by the measure of the search.

    Attributes:
        population: individuals that live at a time.
        mutated_share: chance that a child's width changes in a group.
        spread: standard deviation of the logarithm of that change.
    """

    population: int = 24
    mutated_share: float = 0.2
    spread: float = 0.4

    def __call__(self, task: PruneTask) -> Choice:
        """Search; same seed, same result, also where an interrupted search went on."""
        space = _Space(task)
        if task.recipe.epochs == 0:
            return space.choice(space.first)
        judge = MaskedLoss(task)
        crowd, epochs_done = _Crowd.restored(task.checkpoint.load())
        children = max(1, _FORWARDS_PER_STEP * task.images.steps_per_epoch // judge.batches)
        total = children * task.recipe.epochs
        for epoch in range(epochs_done, task.recipe.epochs):
            rng = np.random.default_rng((task.seed, epoch))
            for child in range(children):
                keep = self._next(crowd, space, rng)
                if not crowd.has(keep):
                    crowd.admit(keep, judge(keep), self.population)
                done = epoch * children + child + 1
                task.observer.step("search", done, total, crowd.values())
            task.observer.epoch("search", epoch + 1, crowd.values())
            task.checkpoint.save(crowd.state() | {"epoch": epoch + 1})
        return space.choice(crowd.keeps[int(np.argmin(crowd.losses))])

    def _next(self, crowd: _Crowd, space: _Space, rng: np.random.Generator) -> Keep:
        """Return the two founders, then children that are new where that is possible."""
        if not crowd.keeps:
            return space.first
        if len(crowd.keeps) == 1 and not crowd.has(space.uniform):
            return space.uniform
        for _ in range(_TRIES):
            mother, father = (space.widths(crowd.parent(rng)) for _ in range(2))
            widths = np.where(rng.random(len(mother)) < 0.5, mother, father)
            mutated = rng.random(len(widths)) < self.mutated_share
            mutated[rng.integers(len(widths))] = True
            change = np.exp(self.spread * rng.standard_normal(len(widths)))
            child = space.individual(np.where(mutated, widths * change, widths))
            if not crowd.has(child):
                break
        return child


class _Space:
    """From widths to choices within the limits and back."""

    def __init__(self, task: PruneTask) -> None:
        self._task = task
        scores = of_the_whole(taylor(task), task)
        self._best_first = [
            group.classes[np.argsort(-scores[group.classes], kind="stable")]
            for group in task.graph.groups
        ]
        self._there = scores > -np.inf
        self.first = self._fitted(scores)
        self.uniform = self.individual(self.widths(self._there))

    def widths(self, keep: Keep) -> Widths:
        """Return the number of classes kept in every group, shape (groups,)."""
        return np.array([float(keep[classes].sum()) for classes in self._best_first])

    def individual(self, widths: Widths) -> Keep:
        """Return the choice with widths in these proportions, scaled alike to the limits."""
        return self._fitted(self._ranking(widths))

    def choice(self, keep: Keep) -> Choice:
        """Return a choice whose ranking scales the widths of a keep set alike."""
        return Choice(self._task.start, keep, self._ranking(self.widths(keep)))

    def _ranking(self, widths: Widths) -> Ranking:
        """Rank a class by how far back it stands in its group, in units of the wanted width.

        One threshold for all groups then scales all widths by one factor.
        """
        ranking = np.empty(self._task.graph.class_count)
        for classes, width in zip(self._best_first, widths, strict=True):
            # A quarter of a channel, for a group that is empty now, can still come back.
            ranking[classes] = -(np.arange(len(classes)) + 0.5) / max(width, 0.25)
        return np.where(self._there, ranking, -np.inf)

    def _fitted(self, ranking: Ranking) -> Keep:
        task = self._task
        return project(ranking, task.graph, task.limits, task.channel_step)


@dataclass
class _Crowd:
    """Who lives, and the loss of each."""

    keeps: list[Keep] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)

    @classmethod
    def restored(cls, state: dict[str, Any] | None) -> tuple[_Crowd, int]:
        """Return the crowd of a saved state and the number of epochs behind it."""
        if state is None:
            return cls(), 0
        return cls(list(state["keeps"].numpy()), state["losses"].tolist()), int(state["epoch"])

    def state(self) -> dict[str, Any]:
        return {
            "keeps": torch.from_numpy(np.stack(self.keeps)),
            "losses": torch.tensor(self.losses, dtype=torch.float64),
        }

    def has(self, keep: Keep) -> bool:
        return any(np.array_equal(keep, other) for other in self.keeps)

    def admit(self, keep: Keep, loss: float, size: int) -> None:
        """Take somebody in; the worst leaves when there are too many."""
        self.keeps.append(keep)
        self.losses.append(loss)
        if len(self.keeps) > size:
            worst = int(np.argmax(self.losses))
            del self.keeps[worst], self.losses[worst]

    def parent(self, rng: np.random.Generator) -> Keep:
        """Return the better of two drawn at random."""
        one, other = rng.integers(len(self.keeps), size=2)
        return self.keeps[one if self.losses[one] <= self.losses[other] else other]

    def values(self) -> dict[str, float]:
        return {"loss": min(self.losses), "mean_loss": float(np.mean(self.losses))}
