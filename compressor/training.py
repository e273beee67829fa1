"""Train weights: baselines, fine-tuning with distillation, evaluation."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from compressor.checkpoint import Checkpoint, random_state, restore_random_state
from compressor.compute import Compute
from compressor.distill import FeaturePairs, teacher_answers
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
    """Train a network in place; leave it with the weights of its best epoch on validation images.

    The network as given counts as epoch 0, so that training never returns something worse. Goes on
    from the checkpoint where there is one.

    Args:
        teacher: in eval mode, on the device; only used where the recipe distills.
        objective: the loss to train by, and the metric that epochs are compared by.

    Returns:
        Mean validation score (top-1, unless the objective says otherwise) of the weights that are
        left, a fraction.
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
    state = checkpoint.load()
    if state is None:
        best_score = evaluate(model, images.validation(), compute, objective)
        best_weights, first = _copy_of(model), 0
    else:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        best_score, best_weights, first = state["best_score"], state["best"], state["epoch"]
        restore_random_state(state["random"])
    for epoch in range(first, recipe.epochs):
        loss = trainer.run_epoch(epoch)
        score = evaluate(model, images.validation(), compute, objective)
        if score >= best_score:
            best_score, best_weights = score, _copy_of(model)
        values = {"loss": loss, f"validation_{objective.score_key}": score}
        observer.epoch(stage, epoch + 1, values)
        checkpoint.save(
            {
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "best": best_weights,
                "best_score": best_score,
                "epoch": epoch + 1,
                "random": random_state(),
            }
        )
    model.load_state_dict(best_weights)
    model.eval()
    return best_score


@dataclass(frozen=True)
class _Trainer:
    """What every epoch of `fit` needs."""

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

    def run_epoch(self, epoch: int) -> float:
        """Train for one epoch; return its mean loss."""
        self.model.train()
        steps = self.images.steps_per_epoch
        total = steps * self.recipe.epochs
        loss_sum = 0.0
        with nullcontext() if self.features is None else self.features:
            for step, (x, labels) in enumerate(self.images.train(epoch)):
                done = epoch * steps + step
                set_rate(self.optimizer, self.recipe.rate(done / total))
                loss_sum += self._step(x, labels)
                values = {"loss": loss_sum / (step + 1)}
                self.observer.step(self.stage, done + 1, total, values)
        if not math.isfinite(loss_sum):
            raise FloatingPointError(
                f"the loss became {loss_sum} in epoch {epoch + 1} of '{self.stage}'; "
                "lower --learning-rate"
            )
        return loss_sum / steps

    def _step(self, x: Tensor, labels: Tensor) -> float:
        """Take one step on a batch; return its loss."""
        x, labels = self.compute.images(x), labels.to(self.compute.device)
        with self.compute.arithmetic():
            answers = teacher_answers(self.teacher, x)
            outputs = self.model(x)
        loss = self.objective.losses(outputs, labels, answers, self.recipe).mean()
        if self.features is not None:
            loss = loss + self.recipe.attention * self.features.losses().mean()
        self.optimizer.zero_grad()
        loss.backward()
        if self.recipe.gradient_norm is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.gradient_norm)
        self.optimizer.step()
        return float(loss.detach())


def evaluate(
    model: nn.Module,
    batches: Iterable[Batch],
    compute: Compute,
    objective: Objective = CLASSIFICATION,
) -> float:
    """Return the mean score (top-1 by default) as a fraction, in float32 and eval mode."""
    total, count = 0.0, 0
    for outputs, labels in _answers(model, batches, compute):
        total += float(objective.scores(outputs, labels.to(compute.device)).double().sum())
        count += len(labels)
    return total / max(count, 1)


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


def _copy_of(model: nn.Module) -> dict[str, Any]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}
