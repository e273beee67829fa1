"""One training step on a copy of the network, before hours of them: train mode runs other code."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from compress_export.judging import TRIED_IMAGES, answer, shapes_of, tried
from compress_export.shortages import shortage
from compressor.errors import InputError
from compressor.user_code import first_line

if TYPE_CHECKING:
    from torch import Tensor

    from compress_export.task import Task


def check_trains(task: Task, *, distills: bool) -> None:
    """Run the network forward and back in train mode on a few images, as training will.

    Nothing is left of it: weights and statistics are a copy's, random numbers are drawn again.

    Args:
        distills: a teacher's answers, those of eval mode, are compared with it.

    Raises:
        InputError: the network fails in train mode, its loss has no gradient, or it returns other
            tensors than in eval mode, where no loss and metric of the user's take them.
    """
    import torch

    x, labels = _batch(task)
    network = copy.deepcopy(task.model)
    name = f"--model {task.architecture}"
    with torch.random.fork_rng(devices=[]):
        with torch.no_grad():
            usual = answer(name, network.eval(), x)
        outputs = answer(f"{name} in train mode", network.train(), x)
        _check_alike(task, outputs, usual, labels, distills)
        loss_name = "cross-entropy" if task.objective.loss is None else task.objective.loss.name
        losses = tried("loss", loss_name, task.objective.losses, outputs, labels)
        try:
            losses.mean().backward()
        except Exception as error:
            if shortage(error) is not None:
                raise
            raise InputError(
                f"{name} in train mode: the gradient of its loss fails with "
                f"{type(error).__name__}: {first_line(error)}"
            ) from error


def _batch(task: Task) -> tuple[Tensor, Tensor]:
    """Return as many images as a step may have; two at the least, for batch norms."""
    import torch

    x, labels = next(iter(task.images("baseline").validation()))
    if len(x) == 1:
        return torch.cat((x, x)), torch.cat((labels, labels))
    count = max(2, min(TRIED_IMAGES, task.batch_size))
    return x[:count], labels[:count]


def _check_alike(task: Task, outputs: Any, usual: Any, labels: Tensor, distills: bool) -> None:
    import torch

    from compressor.objective import tensors_of

    found, wanted = ([t.shape for t in tensors_of(packed)] for packed in (outputs, usual))
    same_kind = isinstance(outputs, torch.Tensor) == isinstance(usual, torch.Tensor)
    if found == wanted and same_kind:
        return
    objective = task.objective
    if objective.loss is None or objective.metric is None or distills:
        raise InputError(
            f"--model {task.architecture}: it returns {shapes_of(outputs)} in train mode and "
            f"{shapes_of(usual)} in eval mode; leave auxiliary outputs out, or give --loss and "
            "--metric that take both, and --distill none"
        )
    tried("metric", objective.metric.name, objective.scores, outputs, labels)
