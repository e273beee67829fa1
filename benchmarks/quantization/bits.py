"""Few bits with and without training with rounding.

    python -m benchmarks.quantization.bits WORK/baselines/resnet20 --data CIFAR --work WORK \
        --epochs 5 --rate 0.01 --seeds 0 1

Each run rounds a saved network as files of a precision do, trains it so with distillation from the
float network (`--qat-epochs` of the product), and appends a row: the float network, the rounded one
and the trained one, on validation images and, read once at the end, on the test images. The
precision float32 is the control: the same training without rounding. What is finished is not run
again; what was interrupted goes on from its last epoch.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.pruning import results
from benchmarks.pruning.files import BOARD
from benchmarks.pruning.setting import Watcher, say, with_seed
from benchmarks.quantization.setting import add_arguments, open_task, saved_options
from boards.parts import FilePrecision
from compress_export.options import JobOptions
from compress_export.schedule import Epochs, quantization_recipe
from compress_export.task import Task
from compressor.checkpoint import Checkpoint
from compressor.errors import InputError
from compressor.quantization.fake import FakeQuantized
from compressor.quantization.scheme import Scheme
from compressor.training import evaluate, fit

FILE = "bits.jsonl"
CONTROL: FilePrecision = "float32"
PRECISIONS: tuple[FilePrecision, ...] = (CONTROL, "int8", "int4-weights", "int2-weights")


@dataclass(frozen=True)
class Run:
    """One run, and what tells it from others.

    Attributes:
        network: name of the saved network's folder.
        precision: of the files that it trains for.
        epochs: of training.
        rate: highest learning rate.
        seed: of the order of batches.
        images: how many of each part were used; None is all of them.
    """

    network: str
    precision: FilePrecision
    epochs: int
    rate: float
    seed: int
    images: int | None

    @property
    def name(self) -> str:
        """For people, and for the checkpoint's file."""
        few = "" if self.images is None else f"-{self.images}images"
        return f"{self.network}-{self.precision}-e{self.epochs}-r{self.rate:g}-s{self.seed}{few}"


def main() -> None:
    """Run what isn't finished yet."""
    arguments = _parser().parse_args()
    path = arguments.results / FILE
    try:
        for folder in arguments.networks:
            options = saved_options(folder, arguments.data, arguments.device)
            options = options.model_copy(update={"learning_rate": arguments.rate})
            task = open_task(options, arguments.images, arguments.threads)
            for run in _runs(arguments, folder.name):
                _finish(run, task, options, arguments.work, path)
    except InputError as error:
        raise SystemExit(f"error: {error}") from None


def _finish(run: Run, task: Task, options: JobOptions, work: Path, path: Path) -> None:
    if results.finished(path, asdict(run)):
        say(f"{run.name}: finished before")
        return
    try:
        row = measure(run, task, options, work)
    except FloatingPointError as error:
        say(f"{run.name}: {error}")
    else:
        results.append(path, asdict(run) | row)


def measure(run: Run, task: Task, options: JobOptions, work: Path) -> dict[str, Any]:
    """Round, train, evaluate; return the figures of the row.

    The test images are read at the end, by the three networks; nothing is chosen by them.
    """
    started = time.monotonic()
    task = with_seed(task, run.seed)
    images = task.images("quantization")
    plain = rounded(task, run.precision)
    trained = rounded(task, run.precision)
    networks = {"float": task.model, "rounded": plain, "trained": trained}
    found: dict[str, Any] = {}
    for name in ("float", "rounded"):
        found[f"validation_{name}"] = evaluate(networks[name], images.validation(), task.compute)
    checkpoint = work / "quantization" / "bits" / f"{run.name}.pt"
    watcher = Watcher(run.name)
    found["validation_trained"] = train(
        trained, task, options, run.epochs, Checkpoint(checkpoint), watcher
    )
    for name, network in networks.items():
        found[f"test_{name}"] = evaluate(network, task.test_batches(), task.compute)
        network.cpu()
    found["curves"], found["seconds"] = watcher.curves, round(time.monotonic() - started, 1)
    checkpoint.unlink(missing_ok=True)
    scores = ", ".join(f"{name} {100 * found[f'test_{name}']:.2f} %" for name in networks)
    say(f"{run.name}: test images: {scores}")
    return found


def rounded(task: Task, precision: FilePrecision) -> nn.Module:
    """Return a copy of the task's network that rounds as files of a precision; the control doesn't.

    Grids are those of ONNX files on x86; TFLite's differ at the outputs of int8 files alone.
    """
    network = copy.deepcopy(task.model).cpu()
    if precision == CONTROL:
        return network
    scheme = Scheme.of(precision, BOARD.quantization.onnx)
    return FakeQuantized(network, scheme, _calibration(task), task.example())


def train(
    network: nn.Module,
    task: Task,
    options: JobOptions,
    epochs: int,
    checkpoint: Checkpoint,
    watcher: Watcher,
) -> float:
    """Train by the product's recipe, in place; return the validation top-1, a fraction."""
    return fit(
        network,
        task.images("quantization"),
        quantization_recipe(options, Epochs(0, 0, 0, quantization=epochs), task.batch_size),
        task.compute,
        stage="quantization",
        checkpoint=checkpoint,
        observer=watcher,
        teacher=task.compute.place(task.model).eval(),
    )


def _calibration(task: Task) -> Callable[[], Iterator[Tensor]]:
    def batches() -> Iterator[Tensor]:
        return (torch.from_numpy(batch) for batch in task.calibration_stream())

    return batches


def _runs(arguments: argparse.Namespace, network: str) -> Iterator[Run]:
    for seed in arguments.seeds:
        for precision in arguments.precisions:
            yield Run(network, precision, arguments.epochs, arguments.rate, seed, arguments.images)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.quantization.bits",
        description=(__doc__ or "").splitlines()[0],
    )
    parser.add_argument("networks", nargs="+", type=Path, help="folders of saved networks")
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=list(PRECISIONS))
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--rate", type=float, default=0.01, help="highest learning rate")
    add_arguments(parser)
    return parser


if __name__ == "__main__":
    main()
