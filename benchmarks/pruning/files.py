"""Model files of finished networks, made and evaluated as the product does it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from time import perf_counter, sleep
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from benchmarks.pruning import results
from benchmarks.pruning.setting import Setting, say
from boards import load_board
from compress_export.data import ImageSet
from compress_export.exporting import Exports
from compress_export.task import Task
from compressor.errors import InputError
from runtime_bench import read_manifest
from runtime_bench.manifest import Manifest, ModelFile
from runtime_bench.metrics import macro_precision_recall, top1
from runtime_bench.preprocess import normalise
from runtime_bench.quantize import from_native
from runtime_bench.runtimes import Runner, load_runner
from runtime_bench.worker import EVALUATION_BATCH

BOARD = load_board("x86-64")
TURN_IMAGES = 500
# A runtime's idle threads spin for a while after a run and would disturb the next file's turn.
_SPIN_DOWN_S = 0.05

Pixels = NDArray[np.uint8]


def network_folder(setting: Setting, run: str) -> Path:
    """Return the folder of a network that `benchmarks.pruning.compare` saved.

    Raises:
        InputError: no run of that name is saved.
    """
    folder = setting.work / "networks" / run
    if not (folder / "model.json").exists():
        saved = sorted(path.parent.name for path in folder.parent.glob("*/model.json"))
        near = get_close_matches(run, saved, n=3, cutoff=0.4)
        raise InputError(
            f"no network of a run '{run}' among the {len(saved)} in {folder.parent}; "
            + (f"did you mean {', '.join(near)}?" if near else "run benchmarks.pruning.compare")
        )
    return folder


def export(
    task: Task,
    model: nn.Module,
    stage: str,
    folder: Path,
    formats: tuple[str, ...],
    precisions: Sequence[str],
) -> Path:
    """Write a network's files with their manifest, calibrated on training images.

    Args:
        stage: "baseline" or "slim"; the files are called {stage}.{precision}.{format}.

    Returns:
        The folder.
    """
    exports = Exports(task, BOARD, formats, BOARD.target_precision, say)
    exports.finish_reference(folder, exports.write(model, stage, folder, precisions))
    return folder


def with_test_images(task: Task, count: int | None) -> Task:
    """Return the task with only so many test images, spread evenly over all of them.

    Raises:
        InputError: a count below 1.
    """
    if count is not None and count < 1:
        raise InputError(f"--images {count}: at least one test image is needed")
    if count is None or count >= len(task.data.test):
        return task
    chosen = np.linspace(0, len(task.data.test) - 1, count).round().astype(np.int64)
    return replace(task, data=replace(task.data, test=task.data.test.subset(chosen)))


@dataclass
class Evaluation:
    """One file's answers to the test images, and how long they took.

    Attributes:
        batch: images per call; TFLite files take one.
        predictions: int64 (n,), one array per call.
        eval_seconds: normalising, quantizing the input, running, reading the output.
        runtime_seconds: of which inside the runtime.
    """

    manifest: Manifest
    file: ModelFile
    runner: Runner
    batch: int
    predictions: list[NDArray[np.int64]] = field(default_factory=list)
    eval_seconds: float = 0.0
    runtime_seconds: float = 0.0

    @classmethod
    def load(cls, manifest: Manifest, file: ModelFile, threads: int) -> Evaluation:
        """Load a file into its runtime."""
        runner = load_runner(manifest.folder / file.path, file, threads)
        return cls(manifest, file, runner, EVALUATION_BATCH if runner.free_batch else 1)

    def take_turn(self, images: Pixels) -> None:
        """Answer some more images, (n, H, W, C)."""
        started = perf_counter()
        for start in range(0, len(images), EVALUATION_BATCH):
            x = normalise(images[start : start + EVALUATION_BATCH], self.manifest.preprocessing)
            for first in range(0, len(x), self.batch):
                native = self.runner.prepare(x[first : first + self.batch])
                entered = perf_counter()
                output = self.runner.invoke(native)
                self.runtime_seconds += perf_counter() - entered
                self.predictions.append(from_native(output, self.file.output).argmax(axis=1))
        self.eval_seconds += perf_counter() - started

    def right(self, labels: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return which images were answered rightly, (N,)."""
        return np.concatenate(self.predictions) == labels

    def figures(self, labels: NDArray[np.int64]) -> dict[str, Any]:
        """Return size, accuracy and time as plain JSON."""
        predicted = np.concatenate(self.predictions)
        precision, recall = macro_precision_recall(labels, predicted)
        return {
            "format": self.file.format,
            "precision": self.file.precision,
            "size_bytes": self.file.size_bytes,
            "top1": top1(labels, predicted),
            "precision_macro": precision,
            "recall_macro": recall,
            "eval_seconds": self.eval_seconds,
            "runtime_seconds": self.runtime_seconds,
            "runtime": self.runner.runtime,
            "batch": self.batch,
            "right": results.pack(predicted == labels),
        }


def evaluate_in_turns(
    folders: Sequence[Path], format: str, images: ImageSet, threads: int
) -> list[Evaluation]:
    """Run all files of one format over the same images, in this process.

    The files take turns of `TURN_IMAGES` images, every second turn backwards, so that a machine
    that slows down slows all of them alike. Nothing is counted of loading, of one call that warms
    up, and of reading the images.

    Args:
        folders: as `export` wrote them.
        images: every image is answered once by every file.
        threads: of each operator.

    Returns:
        One evaluation per file, in the order of folders and their manifests.
    """
    manifests = [read_manifest(folder) for folder in folders]
    chosen = [(m, file) for m in manifests for file in m.files if file.format == format]
    evaluations = [Evaluation.load(manifest, file, threads) for manifest, file in chosen]
    pause_s = _SPIN_DOWN_S if threads > 1 and len(evaluations) > 1 else 0.0
    for turn, pixels in enumerate(_turns(images)):
        if turn == 0:
            for evaluation in evaluations:
                _warm_up(evaluation, pixels)
        for evaluation in evaluations if turn % 2 == 0 else reversed(evaluations):
            sleep(pause_s)
            evaluation.take_turn(pixels)
    return evaluations


def _turns(images: ImageSet) -> Iterator[Pixels]:
    """Yield the images in order, (n, H, W, C) with n at most TURN_IMAGES."""
    for start in range(0, len(images), TURN_IMAGES):
        chosen = np.arange(start, min(start + TURN_IMAGES, len(images)))
        yield np.ascontiguousarray(images.read(chosen).transpose(0, 2, 3, 1))


def _warm_up(evaluation: Evaluation, pixels: Pixels) -> None:
    x = normalise(pixels[: evaluation.batch], evaluation.manifest.preprocessing)
    evaluation.runner.run(x)
