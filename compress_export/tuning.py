"""Training of the network that goes to the board, after it was slimmed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compressor.checkpoint import Checkpoint
from compressor.recipe import Recipe
from compressor.training import fit

if TYPE_CHECKING:
    from torch import nn

    from compress_export.job import Job


def tune(job: Job, network: nn.Module, stage: str, recipe: Recipe) -> float:
    """Train a network in place, in a stage of its own that can be resumed.

    Returns:
        Its validation score, a fraction.
    """
    task = job.task
    score = fit(
        network,
        task.images(stage),
        recipe,
        task.compute,
        stage=stage,
        checkpoint=Checkpoint(job.work / f"{stage}.pt"),
        observer=job.log.within(job.branch) if job.branch else job.log,
        teacher=teacher_of(job, recipe),
        objective=task.objective,
    )
    job.baseline.cpu()
    network.cpu()
    return score


def teacher_of(job: Job, recipe: Recipe) -> nn.Module | None:
    """Return the network that teaches, on the device; None where the recipe has no use for it."""
    if not recipe.distills:
        return None
    task = job.task
    teacher = job.baseline if task.teacher is None else task.teacher
    return task.compute.place(teacher).eval()
