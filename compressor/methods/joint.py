"""The loop of methods that train weights and judge channels by the same batches.

`training.fit` may go back to an epoch; here the last one counts, since what was learned about
the channels belongs to the weights of that moment.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from compressor.epochs import finite_loss, run_epochs
from compressor.methods.method import PruneTask
from compressor.training import set_rate, sgd, teacher_answers


class Learner(Protocol):
    """Weights, and whatever else a method learns beside them."""

    def step(
        self, x: Tensor, labels: Tensor, progress: float, rate: float, generator: torch.Generator
    ) -> Mapping[str, float]:
        """Learn from one batch.

        Args:
            x: images on the task's device, shape (N, C, H, W).
            labels: shape (N, ...).
            progress: share of all steps that are done.
            rate: learning rate of the weights.
            generator: of everything random in this epoch.

        Returns:
            Values whose means the observer is told; "loss" is among them.
        """

    def standing(self, progress: float) -> Mapping[str, float]:
        """Return values of the moment for the observer, at a share of all steps."""

    def state_dict(self) -> dict[str, Any]:
        """Return everything that a resumed search needs."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to a saved state."""


class Weights:
    """The weights of a task's network while they train by the task's recipe."""

    def __init__(self, task: PruneTask) -> None:
        self._task = task
        self.model = task.compute.place(task.start.model)
        self._optimizer = sgd(self.model, task.recipe)

    def loss(self, x: Tensor, labels: Tensor) -> Tensor:
        """Return the mean loss of one batch in train mode, a scalar with gradient."""
        self.model.train()
        with self._task.compute.arithmetic():
            answers = teacher_answers(self._task.teacher, x)
            outputs = self.model(x)
        return self._task.objective.losses(outputs, labels, answers, self._task.recipe).mean()

    def update(self, loss: Tensor, rate: float) -> None:
        """Take one step of SGD; gradients also reach what else the loss depends on."""
        set_rate(self._optimizer, rate)
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()

    def state_dict(self) -> dict[str, Any]:
        """Return weights and optimizer."""
        return {"model": self.model.state_dict(), "optimizer": self._optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to a saved state."""
        self.model.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])


def learn(task: PruneTask, learner: Learner) -> None:
    """Give a learner the epochs of the task's recipe; go on from the checkpoint if there is one.

    Every epoch draws from its own seed, so a resumed search equals an undisturbed one.

    Raises:
        DivergedError: the loss became no number, also at lower learning rates.
    """
    search, epochs = _Search(task, learner), task.recipe.epochs
    run_epochs(search, epochs, stage="search", checkpoint=task.checkpoint, observer=task.observer)


@dataclass(frozen=True)
class _Search:
    """A learner that is taken through epochs."""

    task: PruneTask
    learner: Learner

    def run_epoch(self, epoch: int, rate_factor: float) -> dict[str, float]:
        """Return the means of what the learner reported."""
        task, learner = self.task, self.learner
        generator = torch.Generator().manual_seed(task.seed * 1_000_003 + epoch)
        steps = task.images.steps_per_epoch
        total = steps * task.recipe.epochs
        sums: dict[str, float] = {}
        means: dict[str, float] = {}
        for step, (x, labels) in enumerate(task.images.train(epoch)):
            done = epoch * steps + step
            x, labels = task.compute.images(x), labels.to(task.compute.device)
            progress = done / total
            rate = task.recipe.rate(progress) * rate_factor
            values = learner.step(x, labels, progress, rate, generator)
            finite_loss(values["loss"])
            for name, value in values.items():
                sums[name] = sums.get(name, 0.0) + value
            means = {name: value / (step + 1) for name, value in sums.items()}
            standing = learner.standing((done + 1) / total)
            task.observer.step("search", done + 1, total, {**means, **standing})
        return {**means, **learner.standing((epoch + 1) / task.recipe.epochs)}

    def state_dict(self) -> dict[str, Any]:
        return {"learner": self.learner.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.learner.load_state_dict(state["learner"])
