"""The bench stage: the test images as a file, then every model file in a process of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from compress_export.task import Task
from compressor.whole_files import whole_file

if TYPE_CHECKING:
    from torch import nn

    from compress_export.job import Job
    from compress_export.progress import RunLog
    from runtime_bench import Measurement, Trace

LATENCY_RUNS = 100


@dataclass(frozen=True)
class Measured:
    """What the test images and the files gave.

    Attributes:
        files: one measurement per model file.
        scores: stage -> mean of the metric of its torch network, top-1 by default, a fraction.
        traces: every time and answer of the files that were run.
        answers: "torch baseline" and "torch slim" -> class of every test image, int64 (N,); empty
            where the metric is the user's.
    """

    files: tuple[Measurement, ...]
    scores: dict[str, float]
    traces: tuple[Trace, ...] = ()
    answers: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)


def bench(job: Job) -> Measured:
    """Measure all files on the test images, which are read here for the first time.

    A metric of the user's is torch code, which the process that measures a file doesn't know: files
    are judged by it here, after they were timed.
    """
    networks = {"baseline": job.baseline}
    if job.pruned is not None:
        networks["slim"] = job.pruned.model
    with job.log.timed("bench"):
        if job.task.objective.metric is None:
            return _bench_classes(job, networks)
        return _bench_scores(job, networks)


def _bench_classes(job: Job, networks: dict[str, nn.Module]) -> Measured:
    predicted = {name: _predict(job.task, net) for name, net in networks.items()}
    samples = _write_samples(job.task, predicted, samples_file(job))
    labels = job.task.data.test.labels
    top1 = {name: float((answers == labels).mean()) for name, answers in predicted.items()}
    files, traces = _measure_files(job, samples)
    return Measured(files, top1, traces, {f"torch {name}": a for name, a in predicted.items()})


def _bench_scores(job: Job, networks: dict[str, nn.Module]) -> Measured:
    from compress_export.file_scores import with_scores
    from compressor.training import evaluate

    task = job.task
    scores = {
        name: evaluate(net, task.test_batches(), task.compute, task.objective)
        for name, net in networks.items()
    }
    for net in networks.values():
        net.cpu()
    files, traces = _measure_files(job, None)
    return Measured(with_scores(files, task, task.test_batches, job.log.say), scores, traces)


def _measure_files(
    job: Job, samples: Path | None
) -> tuple[tuple[Measurement, ...], tuple[Trace, ...]]:
    from runtime_bench import measure_folders

    traces: list[Trace] = []
    files = measure_folders(
        [job.folder.staged / "bundle", job.folder.staged / "reference"],
        samples=samples,
        threads=job.options.threads or 1,
        runs=job.options.latency_runs or LATENCY_RUNS,
        progress=lambda line: _say(job.log, line),
        traces=traces,
    )
    return files, tuple(traces)


def samples_file(job: Job) -> Path:
    """Where all test images lie once they were read, as `runtime_bench.samples` reads them."""
    return job.folder.run / "samples.npz"


def _say(log: RunLog, line: str) -> None:
    """Pass on a line of the bench, which counts images aloud."""
    (log.say_seldom if line.endswith(" images evaluated") else log.say)(line)


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
    with whole_file(path) as unfinished, unfinished.open("wb") as file:
        np.savez(file, images=images, labels=test.labels, **answers)
    return path
