"""Train weights: baselines, fine-tuning with distillation, evaluation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from compressor import ranks
from compressor.checkpoint import Checkpoint
from compressor.compute import Compute
from compressor.distill import FeaturePairs, teacher_answers
from compressor.epoch_choice import EpochChoice, mean_score
from compressor.epochs import finite_loss, run_epochs
from compressor.losses import image_losses
from compressor.objective import CLASSIFICATION, Objective
from compressor.recipe import Recipe, set_rate, sgd

__all__ = [
    "Batch",
    "Images",
    "Observer",
    "Recipe",
    "evaluate",
    "fit",
    "image_losses",
    "image_scores",
    "predictions",
    "set_rate",
    "sgd",
    "teacher_answers",
]

Batch = tuple[Tensor, Tensor]


class Images(Protocol):
    """The images that training sees; calling `train` twice for one epoch gives the same batches."""

    @property
    def steps_per_epoch(self) -> int:
        """Batches in one epoch."""

    def train(self, epoch: int) -> Iterable[Batch]:
        """Return (N, C, H, W) images and their labels, (N, ...), in the epoch's own order."""

    def validation(self) -> Iterable[Batch]:
        """Return the validation images in a fixed order."""


class Observer(Protocol):
    """Somebody who watches long work."""

    def step(self, stage: str, done: int, total: int, values: Mapping[str, float]) -> None:
        """Called after every batch."""

    def epoch(self, stage: str, epoch: int, values: Mapping[str, float]) -> None:
        """Called after every epoch with its means."""

    def setback(self, stage: str, text: str) -> None:
        """Called where an epoch has to be done again; `text` says why, for people."""

    def policy(self, progress: float, probabilities: Tensor) -> None:
        """Called after every batch of a search by agents, at a share of all its batches.

        Args:
            probabilities: of keeping each class of the whole network, shape (classes,).
        """


def fit(
    model: nn.Module,
    images: Images,
    recipe: Recipe,
    compute: Compute,
    *,
    stage: str,
    checkpoint: Checkpoint,
    observer: Observer,
    teacher: nn.Module | None = None,
    objective: Objective = CLASSIFICATION,
) -> float:
    """Train a network in place; leave it with the weights that `EpochChoice` takes.

    They are the latest that aren't clearly worse on the validation images than the best. The
    network as given counts as epoch 0, so that training never returns something clearly worse. Goes
    on from the checkpoint where there is one.

    Args:
        teacher: in eval mode, on the device; only used where the recipe distills.
        objective: the loss to train by, and the metric that epochs are compared by.

    Returns:
        Mean validation score (top-1, unless the objective says otherwise) of the weights that are
        left, a fraction.

    Raises:
        DivergedError: the loss became no number, also at lower learning rates.
    """
    compute.place(model)
    optimizer = sgd(model, recipe)
    if not recipe.distills:
        teacher = None
    features = None
    if teacher is not None and recipe.attention > 0:
        features = FeaturePairs(model, teacher, next(iter(images.validation()))[0][:1])
    trainer = _Trainer(
        model, images, recipe, compute, optimizer, stage, observer, teacher, features, objective
    )
    run_epochs(trainer, recipe.epochs, stage=stage, checkpoint=checkpoint, observer=observer)
    chosen = trainer.choice
    model.load_state_dict(chosen.weights)
    model.eval()
    return chosen.score


@dataclass
class _Trainer:
    """What every epoch of `fit` needs, and the weights that it would leave by now."""

    model: nn.Module
    images: Images
    recipe: Recipe
    compute: Compute
    optimizer: torch.optim.Optimizer
    stage: str
    observer: Observer
    teacher: nn.Module | None
    features: FeaturePairs | None
    objective: Objective
    _choice: EpochChoice = field(default_factory=EpochChoice, init=False)

    @property
    def choice(self) -> EpochChoice:
        """Among the epochs so far; the network as given counts as one."""
        if not self._choice.weights:
            self._choice.offer(self.model, self._scores())
        return self._choice

    def run_epoch(self, epoch: int, rate_factor: float) -> dict[str, float]:
        """Train for one epoch; return its mean loss and the validation score after it."""
        choice = self.choice  # begins before the first step
        loss = self._train(epoch, rate_factor)
        scores = self._scores()
        choice.offer(self.model, scores)
        return {"loss": loss, f"validation_{self.objective.score_key}": mean_score(scores)}

    def state_dict(self) -> dict[str, Any]:
        """Return weights, optimizer and the choice among the epochs so far."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "choice": self.choice.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to a saved state."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self._choice.load_state_dict(state["choice"])

    def _scores(self) -> Tensor:
        """Of all validation images, which processes judge batch by batch in turns, shape (N,)."""
        parts = [torch.zeros(0, dtype=torch.float64)]
        for number, batch in enumerate(self.images.validation()):
            if number % ranks.count() == ranks.rank():
                scores = image_scores(self.model, [batch], self.compute, self.objective)
            else:
                scores = torch.zeros(len(batch[1]))
            parts.append(scores.double())
        return ranks.added(torch.cat(parts))

    def _train(self, epoch: int, rate_factor: float) -> float:
        self.model.train()
        steps = self.images.steps_per_epoch
        total = steps * self.recipe.epochs
        loss_sum = 0.0
        with nullcontext() if self.features is None else self.features:
            batches = self.images.train(epoch)
            ranks.own_random()
            for step, (x, labels) in enumerate(batches):
                done = epoch * steps + step
                set_rate(self.optimizer, self.recipe.rate(done / total) * rate_factor)
                loss_sum += finite_loss(self._step(x, labels))
                values = {"loss": loss_sum / (step + 1)}
                self.observer.step(self.stage, done + 1, total, values)
        return loss_sum / steps

    def _step(self, x: Tensor, labels: Tensor) -> float:
        """Take one step on a batch, with one's own share of it; return its loss."""
        share = ranks.share(len(x))
        x, labels = self.compute.images(share.of(x)), share.of(labels).to(self.compute.device)
        with self.compute.arithmetic():
            answers = teacher_answers(self.teacher, x)
            outputs = self.model(x)
        loss = share.mean(self.objective.losses(outputs, labels, answers, self.recipe))
        if self.features is not None:
            loss = loss + self.recipe.attention * share.mean(self.features.losses())
        self.optimizer.zero_grad()
        loss.backward()
        mean_loss = ranks.add_up(self.model, loss)
        if self.recipe.gradient_norm is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.gradient_norm)
        self.optimizer.step()
        return mean_loss


def evaluate(
    model: nn.Module,
    batches: Iterable[Batch],
    compute: Compute,
    objective: Objective = CLASSIFICATION,
) -> float:
    """Return the mean score (top-1 by default) as a fraction, in float32 and eval mode."""
    return mean_score(image_scores(model, batches, compute, objective))


def image_scores(
    model: nn.Module,
    batches: Iterable[Batch],
    compute: Compute,
    objective: Objective = CLASSIFICATION,
) -> Tensor:
    """Return the score of every image in its order, shape (N,), in float32 and eval mode."""
    parts = [
        objective.scores(outputs, labels.to(compute.device)).cpu()
        for outputs, labels in _answers(model, batches, compute)
    ]
    return torch.cat(parts) if parts else torch.zeros(0)


def evaluate_with_loss(
    model: nn.Module,
    batches: Iterable[Batch],
    compute: Compute,
    objective: Objective = CLASSIFICATION,
) -> tuple[float, float]:
    """Return the mean score like `evaluate`, and the mean loss on the labels alone."""
    score, loss, count = 0.0, 0.0, 0
    for outputs, labels in _answers(model, batches, compute):
        labels = labels.to(compute.device)
        score += float(objective.scores(outputs, labels).double().sum())
        loss += float(objective.losses(outputs, labels).double().sum())
        count += len(labels)
    return score / max(count, 1), loss / max(count, 1)


def predictions(
    model: nn.Module, batches: Iterable[Batch], compute: Compute
) -> Iterable[tuple[Tensor, Tensor]]:
    """Yield predicted classes and labels, both (N,), batch by batch."""
    for logits, labels in _answers(model, batches, compute):
        yield logits.argmax(dim=1).cpu(), labels


def _answers(
    model: nn.Module, batches: Iterable[Batch], compute: Compute
) -> Iterable[tuple[Any, Tensor]]:
    """Yield the outputs on the device and the labels of every batch."""
    compute.place(model).eval()
    for x, labels in batches:
        with torch.no_grad():
            outputs = model(compute.images(x))
        yield outputs, labels
