"""The user's metric on the answers of model files."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from compress_export.task import Task

if TYPE_CHECKING:
    import torch

    from runtime_bench import Measurement
    from runtime_bench.manifest import ModelFile
    from runtime_bench.runtimes import Runner

_BATCH = 32


def with_scores(
    measurements: Sequence[Measurement], task: Task, say: Callable[[str], None]
) -> tuple[Measurement, ...]:
    """Return measurements with the mean of the task's metric on the test images filled in.

    Files run in this process, in the runtimes that timed them. What couldn't be timed for lack of a
    runtime stays as it is.
    """
    return tuple(
        item if item.runtime is None else _scored(item, task, say) for item in measurements
    )


def _scored(item: Measurement, task: Task, say: Callable[[str], None]) -> Measurement:
    say(f"{item.name}: evaluating {task.objective.metric_name}")
    from runtime_bench.runtimes import load_runner

    file = _described(item)
    runner = load_runner(Path(item.folder) / file.path, file, item.threads)
    start = time.perf_counter()
    total, count = 0.0, 0
    for x, labels in task.test_batches():
        for part, truth in zip(x.split(_BATCH), labels.split(_BATCH), strict=True):
            scores = task.objective.scores(_answer(runner, file, part), truth)
            total += float(scores.double().sum())
            count += len(truth)
    seconds = time.perf_counter() - start
    return replace(item, score=total / count, samples=count, eval_seconds=seconds)


def _described(item: Measurement) -> ModelFile:
    from runtime_bench import read_manifest

    (file,) = [f for f in read_manifest(Path(item.folder)).files if f.name == item.name]
    return file


def _answer(runner: Runner, file: ModelFile, x: torch.Tensor) -> torch.Tensor:
    """Return the file's output for a batch, image by image where it takes no more at a time."""
    import torch

    parts = [x] if runner.free_batch else x.split(1)
    flat = torch.cat([torch.from_numpy(runner.run(part.numpy())) for part in parts])
    return flat.reshape(len(x), *file.output.shape[1:])
