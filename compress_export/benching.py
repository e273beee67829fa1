"""The bench stage: the test images as a file, then every model file in a process of its own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from compress_export.task import Task

if TYPE_CHECKING:
    from torch import nn

    from compress_export.job import Job
    from runtime_bench import Measurement

LATENCY_RUNS = 100


@dataclass(frozen=True)
class Measured:
    """What the test images and the files gave.

    Attributes:
        files: one measurement per model file.
        top1: stage -> top-1 of its torch network, a fraction.
    """

    files: tuple[Measurement, ...]
    top1: dict[str, float]


def bench(job: Job) -> Measured:
    """Measure all files on the test images, which are read here for the first time."""
    from runtime_bench import measure_folders

    networks = {"baseline": job.baseline}
    if job.pruned is not None:
        networks["slim"] = job.pruned.model
    with job.log.timed("bench"):
        predicted = {name: _predict(job.task, net) for name, net in networks.items()}
        samples = _write_samples(job.task, predicted, job.folder.run / "samples.npz")
        files = measure_folders(
            [job.folder.staged / "bundle", job.folder.staged / "reference"],
            samples=samples,
            threads=job.options.threads or 1,
            runs=job.options.latency_runs or LATENCY_RUNS,
            progress=job.log.say,
        )
    labels = job.task.data.test.labels
    top1 = {name: float((answers == labels).mean()) for name, answers in predicted.items()}
    return Measured(files, top1)


def describe(job: Job) -> Measured:
    """Say what is known of all files without running them; the test images stay unread."""
    from runtime_bench import describe_folders

    folders = [job.folder.staged / "bundle", job.folder.staged / "reference"]
    return Measured(describe_folders(folders), {})


def _predict(task: Task, model: nn.Module) -> NDArray[np.int64]:
    """Return torch's answers to the test images, int64 (N,)."""
    from compressor.training import predictions

    answers = [p.numpy() for p, _ in predictions(model, task.test_batches(), task.compute)]
    model.cpu()
    return np.concatenate(answers)


def _write_samples(task: Task, predicted: dict[str, NDArray[np.int64]], path: Path) -> Path:
    """Write what `runtime_bench` evaluates on: uint8 (N, H, W, 3), labels, torch's answers."""
    test = task.data.test
    images = test.read(np.arange(len(test))).transpose(0, 2, 3, 1)
    answers: dict[str, Any] = {f"predictions_{name}": found for name, found in predicted.items()}
    np.savez(path, images=images, labels=test.labels, **answers)
    return path
