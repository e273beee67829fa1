"""Train weights: baselines, fine-tuning with distillation, evaluation."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compressor.checkpoint import Checkpoint, random_state, restore_random_state
from compressor.compute import Compute

Batch = tuple[Tensor, Tensor]


class Images(Protocol):
    """The images that training sees; calling `train` twice for one epoch gives the same batches."""

    @property
    def steps_per_epoch(self) -> int:
        """Batches in one epoch."""

    def train(self, epoch: int) -> Iterable[Batch]:
        """Return (N, C, H, W) images and (N,) labels in the epoch's own order."""

    def validation(self) -> Iterable[Batch]:
        """Return the validation images in a fixed order."""


class Observer(Protocol):
    """Somebody who watches long work."""

    def step(self, stage: str, done: int, total: int, values: Mapping[str, float]) -> None:
        """Called after every batch."""

    def epoch(self, stage: str, epoch: int, values: Mapping[str, float]) -> None:
        """Called after every epoch with its means."""


@dataclass(frozen=True)
class Recipe:
    """How weights are trained: SGD with Nesterov momentum, one cycle of the learning rate.

    Attributes:
        epochs: passes over the training images.
        learning_rate: highest rate of the cycle.
        weight_decay: on weights with more than one axis; norms and biases have none.
        warmup_share: share of all steps in which the rate rises; 0 is a plain cosine.
        decays: whether the rate falls to zero afterwards; a search that fine-tuning follows holds
            it, since the cycle ends there.
        label_smoothing: of the cross-entropy.
        distillation: weight of the teacher's answer in the loss, 0 to 1.
        temperature: of the softened answers in distillation.
    """

    epochs: int
    learning_rate: float
    weight_decay: float = 5e-4
    momentum: float = 0.9
    warmup_share: float = 0.2
    decays: bool = True
    label_smoothing: float = 0.0
    distillation: float = 0.0
    temperature: float = 4.0

    def rate(self, progress: float) -> float:
        """Return the learning rate at a share of all steps: linear up, cosine down to zero."""
        if progress < self.warmup_share:
            return self.learning_rate * (0.1 + 0.9 * progress / self.warmup_share)
        if not self.decays:
            return self.learning_rate
        down = (progress - self.warmup_share) / (1 - self.warmup_share)
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * down))


def image_losses(
    logits: Tensor, labels: Tensor, teacher_logits: Tensor | None, recipe: Recipe
) -> Tensor:
    """Return the loss of every image, shape (N,).

    Cross-entropy, mixed with the Kullback-Leibler distance to the teacher's softened answers as in
    Hinton et al. 2015 (https://arxiv.org/abs/1503.02531), section 2, scaled by the temperature
    squared.
    """
    hard = F.cross_entropy(
        logits.float(), labels, reduction="none", label_smoothing=recipe.label_smoothing
    )
    if teacher_logits is None or recipe.distillation == 0:
        return hard
    t = recipe.temperature
    soft = F.kl_div(
        F.log_softmax(logits.float() / t, dim=1),
        F.log_softmax(teacher_logits.float() / t, dim=1),
        reduction="none",
        log_target=True,
    ).sum(dim=1)
    return (1 - recipe.distillation) * hard + recipe.distillation * t * t * soft


def sgd(model: nn.Module, recipe: Recipe) -> torch.optim.SGD:
    """Return the optimizer of a recipe; norms, biases and constants are not decayed."""
    decayed = [p for p in model.parameters() if p.requires_grad and _is_weight(p)]
    others = [p for p in model.parameters() if p.requires_grad and not _is_weight(p)]
    groups = [
        {"params": decayed, "weight_decay": recipe.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.SGD(
        groups, lr=recipe.learning_rate, momentum=recipe.momentum, nesterov=recipe.momentum > 0
    )


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
) -> float:
    """Train a network in place; leave it with the weights of its best epoch on validation images.

    The network as given counts as epoch 0, so that training never returns something worse. Goes on
    from the checkpoint where there is one.

    Returns:
        Validation top-1 of the weights that are left, a fraction.
    """
    compute.place(model)
    optimizer = sgd(model, recipe)
    state = checkpoint.load()
    if state is None:
        best_top1 = evaluate(model, images.validation(), compute)
        best_weights, first = _copy_of(model), 0
    else:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        best_top1, best_weights, first = state["best_top1"], state["best"], state["epoch"]
        restore_random_state(state["random"])
    for epoch in range(first, recipe.epochs):
        loss = _train_epoch(
            model, images, recipe, compute, optimizer, epoch, stage, observer, teacher
        )
        top1 = evaluate(model, images.validation(), compute)
        if top1 >= best_top1:
            best_top1, best_weights = top1, _copy_of(model)
        observer.epoch(stage, epoch + 1, {"loss": loss, "validation_top1": top1})
        checkpoint.save(
            {
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "best": best_weights,
                "best_top1": best_top1,
                "epoch": epoch + 1,
                "random": random_state(),
            }
        )
    model.load_state_dict(best_weights)
    model.eval()
    return best_top1


def _train_epoch(
    model: nn.Module,
    images: Images,
    recipe: Recipe,
    compute: Compute,
    optimizer: torch.optim.Optimizer,
    epoch: int,
    stage: str,
    observer: Observer,
    teacher: nn.Module | None,
) -> float:
    model.train()
    steps = images.steps_per_epoch
    total = steps * recipe.epochs
    loss_sum = 0.0
    for step, (x, labels) in enumerate(images.train(epoch)):
        done = epoch * steps + step
        set_rate(optimizer, recipe.rate(done / total))
        x, labels = compute.images(x), labels.to(compute.device)
        with compute.arithmetic():
            answers = teacher_answers(teacher, x)
            logits = model(x)
        loss = image_losses(logits, labels, answers, recipe).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss_sum += float(loss.detach())
        observer.step(stage, done + 1, total, {"loss": loss_sum / (step + 1)})
    if not math.isfinite(loss_sum):
        raise FloatingPointError(
            f"the loss became {loss_sum} in epoch {epoch + 1} of '{stage}'; lower --learning-rate"
        )
    return loss_sum / steps


def teacher_answers(teacher: nn.Module | None, x: Tensor) -> Tensor | None:
    """Return the teacher's logits without gradient, or None without a teacher."""
    if teacher is None:
        return None
    with torch.no_grad():
        logits: Tensor = teacher(x)
    return logits


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of all parameter groups."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def evaluate(model: nn.Module, batches: Iterable[Batch], compute: Compute) -> float:
    """Return top-1 as a fraction, in float32 and eval mode."""
    right = count = 0
    for predicted, labels in predictions(model, batches, compute):
        right += int((predicted == labels).sum())
        count += len(labels)
    return right / max(count, 1)


def predictions(
    model: nn.Module, batches: Iterable[Batch], compute: Compute
) -> Iterable[tuple[Tensor, Tensor]]:
    """Yield predicted classes and labels, both (N,), batch by batch."""
    compute.place(model).eval()
    for x, labels in batches:
        with torch.no_grad():
            logits = model(compute.images(x))
        yield logits.argmax(dim=1).cpu(), labels


def _is_weight(parameter: Tensor) -> bool:
    # A constant of an empty branch has shape (1, C, 1, 1): many axes, but it acts as a bias.
    return parameter.dim() > 1 and parameter.numel() > parameter.shape[1]


def _copy_of(model: nn.Module) -> dict[str, Any]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}
