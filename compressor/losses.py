"""What an image costs: its label, a teacher's answer, a teacher's feature maps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from compressor.recipe import Recipe

_LEAST_SPREAD = 1e-6
"""Of the mean square of an output: with less variance, its variance is no unit to measure in."""


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


def output_distances(outputs: Sequence[Tensor], teacher_outputs: Sequence[Tensor]) -> Tensor:
    """Return how far outputs of any meaning are from a teacher's, per image, shape (N,).

    The squared difference, as Ba & Caruana 2014 (https://arxiv.org/abs/1312.6184) regress a
    teacher's logits (equation 2), divided by the variance of the teacher's output in the batch, so
    that neither the unit nor the number of outputs matters: 1 is as good as a constant answer. An
    output that doesn't vary in the batch is measured by its size, one that is 0 by the unit.

    Args:
        outputs, teacher_outputs: tensors of equal shapes, (N, ...) each, at least one.
    """
    parts = []
    for mine, theirs in zip(outputs, teacher_outputs, strict=True):
        theirs = theirs.detach().float()
        spread = theirs.var(correction=0)
        size = theirs.square().mean()
        spread = torch.where(spread > _LEAST_SPREAD * size, spread, torch.where(size > 0, size, 1))
        parts.append((mine.float() - theirs).square().flatten(1).mean(dim=1) / spread)
    return torch.stack(parts).mean(dim=0)


def attention_losses(pairs: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
    """Return how far a student looks elsewhere than its teacher, per image, shape (N,).

    Attention transfer, Zagoruyko & Komodakis 2017 (https://arxiv.org/abs/1612.03928), equation 2
    in the form of its section 4.1: half the squared distance of both attention maps, divided by
    their elements, summed over the pairs; beta stays with the caller.

    Args:
        pairs: feature maps of student and teacher for the same images, (N, C, H, W) each; C may
            differ. At least one pair.
    """
    parts = [
        (attention_map(student) - attention_map(teacher)).square().mean(dim=1) / 2
        for student, teacher in pairs
    ]
    return torch.stack(parts).sum(dim=0)


def attention_map(features: Tensor) -> Tensor:
    """Return the sum of squares over channels as a unit vector: (N, C, H, W) -> (N, H * W)."""
    return F.normalize(features.float().square().sum(dim=1).flatten(1), dim=1)
