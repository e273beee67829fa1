"""The loss and the metric that the user names, tried on real outputs before any training."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from compress_export.shortages import shortage
from compressor.errors import InputError
from compressor.user_code import first_line, load_callable

if TYPE_CHECKING:
    from torch import Tensor, nn

    from compress_export.task import Task
    from compressor.objective import Objective, UserFunction

TRIED_IMAGES = 8
"""Before any work begins."""


def load_objective(loss: str | None, metric: str | None) -> Objective:
    """Return what judges outputs; without names cross-entropy and top-1.

    Raises:
        InputError: no such function.
    """
    from compressor.objective import Objective

    return Objective(_function(loss, "loss"), _function(metric, "metric"))


def _function(spec: str | None, kind: str) -> UserFunction | None:
    from compressor.objective import UserFunction

    return None if spec is None else UserFunction(spec, load_callable(spec, kind))


def check_judged(task: Task) -> None:
    """Judge the outputs of a few images as training will.

    Raises:
        InputError: the network or its teacher fails on an image or changes it; the network returns
            no tensors, or something that cross-entropy and top-1 don't apply to; the user's loss or
            metric fails or returns something else than one number per image, or a loss without a
            gradient.
    """
    batch = next(iter(task.images("baseline").validation()))
    x, labels = (part[:TRIED_IMAGES] for part in batch)
    outputs = _outputs(task, x)
    objective = task.objective
    if objective.loss is None or objective.metric is None:
        _check_classes(task, outputs, labels)
    if objective.loss is not None:
        losses = tried("loss", objective.loss.name, objective.losses, outputs, labels)
        if not losses.requires_grad:
            raise InputError(
                f"loss {objective.loss.name}: what it returns has no gradient; compute it from the "
                "outputs with torch operations alone, without .detach(), .item() or numpy"
            )
    if objective.metric is not None:
        tried("metric", objective.metric.name, objective.scores, outputs, labels)


def answer(name: str, model: nn.Module, x: Tensor) -> Any:
    """Return what a network answers images with.

    Args:
        name: of the network, and perhaps how it is run; begins the message.
        x: shape (N, 3, H, W); the network gets a copy.

    Raises:
        InputError: it fails, or changes the images.
    """
    import torch

    given = x.clone()
    try:
        packed = model(given)
    except Exception as error:
        if shortage(error) is not None:
            raise
        size = f"{x.shape[-1]}x{x.shape[-2]}"
        raise InputError(
            f"{name}: it fails on RGB images of {size} pixels with "
            f"{type(error).__name__}: {first_line(error)}"
        ) from error
    if not torch.equal(given, x):
        raise InputError(
            f"{name}: its forward changes the images that it is given, which a teacher and the "
            "check of the slim network read as well; compute new ones, x = x - mean for x -= mean"
        )
    return packed


def shapes_of(outputs: Any) -> str:
    """Return the shapes of a network's outputs for people, such as "(N, 10) and (N, 8, 6, 6)"."""
    from compressor.objective import tensors_of

    shapes = [f"(N{''.join(f', {n}' for n in t.shape[1:])})" for t in tensors_of(outputs)]
    return " and ".join(shapes) or "no tensor"


def _outputs(task: Task, x: Tensor) -> Any:
    """Return the network's outputs as leaves of their own, so that a gradient can be asked for."""
    import torch

    from compressor.objective import tensors_of

    with torch.no_grad():
        packed = answer(f"--model {task.architecture}", task.model.eval(), x)
        if task.teacher is not None:
            answer("--teacher", task.teacher.eval(), x)
    outputs = tensors_of(packed)
    if not outputs:
        raise InputError(
            f"--model {task.architecture}: its forward returns {type(packed).__name__}; one tensor "
            "or several are needed"
        )
    leaves = [t.detach().requires_grad_(t.is_floating_point()) for t in outputs]
    return leaves[0] if isinstance(packed, torch.Tensor) else leaves


def _check_classes(task: Task, outputs: Any, labels: Tensor) -> None:
    """Raise InputError where cross-entropy or top-1 is wanted and there are no classes."""
    import torch

    missing = [
        f"{name} for {usual}"
        for name, usual, given in (
            ("--loss", "cross-entropy", task.objective.loss),
            ("--metric", "top-1", task.objective.metric),
        )
        if given is None
    ]
    hint = f"give {' and '.join(missing)} as package.module:function of your own"
    if labels.dim() != 1 or labels.is_floating_point():
        raise InputError(
            f"data {task.data.name}: the labels are {str(labels.dtype).removeprefix('torch.')} of "
            f"shape (N{''.join(f', {n}' for n in labels.shape[1:])}), no class numbers; {hint}"
        )
    wanted = (len(labels), len(task.data.classes))
    if isinstance(outputs, torch.Tensor) and tuple(outputs.shape) == wanted:
        return
    raise InputError(
        f"--model {task.architecture}: it returns {shapes_of(outputs)}, wanted is "
        f"(N, {wanted[1]}), one number for each class of the data; where that is meant so, {hint}"
    )


def tried(
    kind: str, name: str, judge: Callable[[Any, Tensor], Tensor], outputs: Any, labels: Tensor
) -> Tensor:
    """Return what a loss or metric says of outputs.

    Raises:
        InputError: it fails, or returns something else than one number per image.
    """
    try:
        return judge(outputs, labels)
    except InputError:
        raise
    except Exception as error:
        from compressor.objective import tensors_of

        shapes = " and ".join(str(tuple(t.shape)) for t in tensors_of(outputs))
        raise InputError(
            f"{kind} {name}: calling it with outputs of shape {shapes} and labels of shape "
            f"{tuple(labels.shape)} failed with {type(error).__name__}: {first_line(error)}"
        ) from error
