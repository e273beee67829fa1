"""Prune a little, train a little: the iterative schedules of the literature.

Han et al. 2015 (https://arxiv.org/abs/1506.02626) prune and retrain in turns; Molchanov et al. 2017
(https://arxiv.org/abs/1611.06440) rank anew in each of them.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace

from compressor.checkpoint import Checkpoint
from compressor.cost import Limits, as_tensor
from compressor.methods.method import Choice, Method, PruneTask
from compressor.shrink import CouplingError
from compressor.training import fit
from compressor.verify import probe_images


def in_rounds(method: Method, rounds: int) -> Method:
    """Let a method without a search choose in rounds, between which the weights train.

    The costs fall by the same factor in every round. The epochs of the task's recipe are shared out
    evenly among the gaps between rounds; the last choice is fine-tuned like any other.

    Args:
        method: chooses from what the rounds before it left.
        rounds: at least 1; 1 is the method itself.
    """

    def choose(task: PruneTask) -> Choice:
        probe = probe_images(task.images)
        for number in range(1, rounds):
            choice = method(replace(task, limits=_loosened(task, number / rounds)))
            with contextlib.suppress(CouplingError):  # a later round cuts these, too
                task = replace(task, start=choice.left.without(choice.keep, probe))
            _train(task, number, rounds)
        return method(task)

    return choose


def _loosened(task: PruneTask, progress: float) -> Limits:
    """Return limits a share of the way, on a logarithmic scale, from the whole costs to the end."""
    whole = as_tensor(task.graph.all_kept())
    limits = {
        name: max(limit, float(task.limits.costs.value(name, whole))) ** (1 - progress)
        * limit**progress
        for name, limit in task.limits.limits.items()
    }
    return Limits(task.limits.costs, limits)


def _train(task: PruneTask, number: int, rounds: int) -> None:
    epochs = task.recipe.epochs * number // (rounds - 1)
    epochs -= task.recipe.epochs * (number - 1) // (rounds - 1)
    path = task.checkpoint.path
    fit(
        task.start.model,
        task.images,
        replace(task.recipe, epochs=epochs),
        task.compute,
        stage=f"round {number}",
        checkpoint=Checkpoint(None if path is None else path.with_stem(f"round-{number}")),
        observer=task.observer,
        teacher=task.teacher,
        objective=task.objective,
    )
