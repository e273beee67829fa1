"""How weights are trained: the recipe as a value, and the optimizer that follows it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from compressor.placeholders import Constant

Regularizer = Literal["l1", "l2"]


@dataclass(frozen=True)
class Recipe:
    """How weights are trained: SGD with Nesterov momentum, one cycle of the learning rate.

    Attributes:
        epochs: passes over the training images.
        learning_rate: highest rate of the cycle.
        weight_decay: on weights with more than one axis; norms, biases and the constants of empty
            branches have none.
        regularizer: what is added to a weight's gradient: weight_decay times the weight (l2) or
            times its sign (l1).
        warmup_share: share of all steps in which the rate rises; 0 is a plain cosine.
        decays: whether the rate falls to zero afterwards; a search that fine-tuning follows holds
            it, since the cycle ends there.
        label_smoothing: of the cross-entropy.
        distillation: weight of the teacher's answer in the loss, 0 to 1.
        temperature: of the softened answers in distillation.
        attention: weight of attention transfer (`losses.attention_losses`), beta of its paper; 0
            leaves the teacher's feature maps alone.
        gradient_norm: a gradient that is longer, over all parameters, is cut to this length.
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
    regularizer: Regularizer = "l2"
    attention: float = 0.0
    gradient_norm: float | None = None

    def rate(self, progress: float) -> float:
        """Return the learning rate at a share of all steps: linear up, cosine down to zero."""
        if progress < self.warmup_share:
            return self.learning_rate * (0.1 + 0.9 * progress / self.warmup_share)
        if not self.decays:
            return self.learning_rate
        down = (progress - self.warmup_share) / (1 - self.warmup_share)
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * down))

    @property
    def distills(self) -> bool:
        """Whether a teacher has a part in the loss."""
        return self.distillation > 0 or self.attention > 0


def sgd(model: nn.Module, recipe: Recipe) -> torch.optim.SGD:
    """Return the optimizer of a recipe; norms, biases and constants are not decayed."""
    # The constant of an empty branch has as many axes as a weight, but it acts as a bias.
    constants = {id(p) for m in model.modules() if isinstance(m, Constant) for p in m.parameters()}
    trained = [p for p in model.parameters() if p.requires_grad]
    decayed = [p for p in trained if p.dim() > 1 and id(p) not in constants]
    others = [p for p in trained if p.dim() <= 1 or id(p) in constants]
    l2 = recipe.weight_decay if recipe.regularizer == "l2" else 0.0
    groups = [
        {"params": decayed, "weight_decay": l2},
        {"params": others, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.SGD(
        groups, lr=recipe.learning_rate, momentum=recipe.momentum, nesterov=recipe.momentum > 0
    )
    if recipe.regularizer == "l1" and recipe.weight_decay > 0:
        _decay_by_sign(optimizer, decayed, recipe.weight_decay)
    return optimizer


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of all parameter groups."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def _decay_by_sign(optimizer: torch.optim.SGD, weights: Sequence[Tensor], decay: float) -> None:
    """Add the subgradient of decay x |weight| before every step, where SGD adds its L2 term."""

    def add(_: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        with torch.no_grad():
            for weight in weights:
                if weight.grad is not None:
                    weight.grad.add_(weight.sign(), alpha=decay)

    optimizer.register_step_pre_hook(add)
