"""What a network is trained towards and measured by: classification, or functions of a user's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from compressor.errors import InputError
from compressor.losses import image_losses, output_distances
from compressor.recipe import Recipe

Outputs = Tensor | tuple[Tensor, ...]
"""What a network returns for N images: one tensor, or several in their order, (N, ...) each."""

_LABELS_ALONE = Recipe(epochs=0, learning_rate=0.0)
_ROUNDING = 1e-6


@dataclass(frozen=True)
class UserFunction:
    """A loss or metric of a user's.

    Attributes:
        name: as it was given, `package.module:function`; used in messages.
        call: from `Outputs` in float32 and the labels, both on the training device, to one number
            per image, shape (N,).
    """

    name: str
    call: Callable[[Outputs, Tensor], Tensor]


@dataclass(frozen=True)
class Objective:
    """How outputs are judged, wherever a network trains, channels are chosen or epochs compared.

    Attributes:
        loss: falls as outputs get better, with a gradient; None is cross-entropy.
        metric: in [0, 1], higher is better, its mean is what counts; None is top-1.
    """

    loss: UserFunction | None = None
    metric: UserFunction | None = None

    @property
    def metric_name(self) -> str:
        """The metric for people: "top-1", or the user's function without its module."""
        return "top-1" if self.metric is None else self.metric.name.rpartition(":")[2]

    @property
    def score_key(self) -> str:
        """What a mean of the metric is called in files: "top1", or "score" for a user's."""
        return "top1" if self.metric is None else "score"

    def losses(
        self,
        outputs: Any,
        labels: Tensor,
        teacher_outputs: Any = None,
        recipe: Recipe = _LABELS_ALONE,
    ) -> Tensor:
        """Return the loss of every image, shape (N,), mixed with the distance to a teacher.

        The distance is that of softened answers beside cross-entropy (`image_losses`), and that of
        the outputs themselves beside a user's loss (`output_distances`), which may mean anything.

        Args:
            outputs: what the network returned.
            labels: class integers (N,) for cross-entropy; for a user's loss as the data gave them.
            teacher_outputs: None trains on labels alone.
            recipe: label smoothing (cross-entropy only) and distillation.

        Raises:
            InputError: the user's loss returns something other than one number per image.
        """
        if self.loss is None:
            return image_losses(outputs, labels, teacher_outputs, recipe)
        hard = _per_image("loss", self.loss, outputs, labels)
        if teacher_outputs is None or recipe.distillation == 0:
            return hard
        soft = output_distances(tensors_of(outputs), tensors_of(teacher_outputs))
        return (1 - recipe.distillation) * hard + recipe.distillation * soft

    def scores(self, outputs: Any, labels: Tensor) -> Tensor:
        """Return the metric of every image in [0, 1], float32, shape (N,), without gradient.

        Raises:
            InputError: the user's metric returns something else.
        """
        with torch.no_grad():
            if self.metric is None:
                return (outputs.argmax(dim=1) == labels).float()
            scores = _per_image("metric", self.metric, outputs, labels).float()
        low, high = (float(end) for end in scores.aminmax())
        if not (low >= -_ROUNDING and high <= 1 + _ROUNDING):  # so that NaN fails
            raise InputError(
                f"metric {self.metric.name}: every score must lie in [0, 1], higher for better "
                f"outputs; those of a batch run from {low:.4g} to {high:.4g}"
            )
        return scores


CLASSIFICATION = Objective()


def tensors_of(outputs: Any) -> tuple[Tensor, ...]:
    """Return all tensors of a network's answer in their order, however they are packed."""
    if isinstance(outputs, Tensor):
        return (outputs,)
    if isinstance(outputs, Mapping):
        outputs = list(outputs.values())
    if isinstance(outputs, Sequence) and not isinstance(outputs, str):
        return tuple(tensor for part in outputs for tensor in tensors_of(part))
    return ()


def as_outputs(outputs: Any) -> Outputs:
    """Return what a user's function is given: float32, a single tensor without a tuple."""
    found = tuple(t.float() if t.is_floating_point() else t for t in tensors_of(outputs))
    return found[0] if len(found) == 1 else found


def _per_image(kind: str, function: UserFunction, outputs: Any, labels: Tensor) -> Tensor:
    values = function.call(as_outputs(outputs), labels)
    if not isinstance(values, Tensor):
        raise InputError(
            f"{kind} {function.name}: it must return a tensor with one number per image, it "
            f"returned {type(values).__name__}"
        )
    if values.shape != (len(labels),):
        raise InputError(
            f"{kind} {function.name}: it must return one number per image, shape "
            f"({len(labels)},); for {len(labels)} images it returned the shape "
            f"{tuple(values.shape)}; was a mean taken over the batch?"
        )
    return values
