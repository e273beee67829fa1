"""The user's metric on the answers of model files."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from compress_export.task import Task

if TYPE_CHECKING:
    import torch

    from compressor.training import Batch
    from runtime_bench import Measurement
    from runtime_bench.runtimes import Runner

_BATCH = 32


def with_scores(
    measurements: Sequence[Measurement],
    task: Task,
    batches: Callable[[], Iterable[Batch]],
    say: Callable[[str], None],
) -> tuple[Measurement, ...]:
    """Return measurements with the mean of the task's metric on some images filled in.

    Files run in this process, in the runtimes that timed them. What couldn't be timed for lack of a
    runtime stays as it is.

    Args:
        batches: starts the images and their labels anew.
    """
    scored = []
    for item in measurements:
        if item.runtime is not None:
            say(f"{item.name}: evaluating {task.objective.metric_name}")
            item = _scored(item, task, batches())
        scored.append(item)
    return tuple(scored)


def _scored(item: Measurement, task: Task, batches: Iterable[Batch]) -> Measurement:
    runner, start = _runner(item), time.perf_counter()
    total, count = 0.0, 0
    for x, labels in batches:
        for part, truth in zip(x.split(_BATCH), labels.split(_BATCH), strict=True):
            answers = _answer(runner, part)
            outputs = answers[0] if task.objective.metric is None else answers
            scores = task.objective.scores(outputs, truth)
            total += float(scores.double().sum())
            count += len(truth)
    seconds = time.perf_counter() - start
    return replace(item, score=total / count, samples=count, eval_seconds=seconds)


def _runner(item: Measurement) -> Runner:
    from runtime_bench import read_manifest
    from runtime_bench.runtimes import load_runner

    folder = Path(item.folder)
    (file,) = [file for file in read_manifest(folder).files if file.name == item.name]
    return load_runner(folder / file.path, file, item.threads)


def _answer(runner: Runner, x: torch.Tensor) -> list[torch.Tensor]:
    """Return the file's outputs for a batch, image by image where it takes no more at a time."""
    import torch

    parts = [x] if runner.free_batch else x.split(1)
    answers = [runner.run_all(part.numpy()) for part in parts]
    return [torch.from_numpy(np.concatenate(one)) for one in zip(*answers, strict=True)]
