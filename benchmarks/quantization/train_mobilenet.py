"""Train the MobileNetV2 that precisions are measured with.

    python -m benchmarks.quantization.train_mobilenet --data CIFAR --work WORK --epochs 30

From scratch by the product's training, with checkpoints: an interrupted one goes on from its last
epoch. The network is saved to WORK/baselines/mobilenet_v2 and measured on the test images once; its
row stands in results/quantization/baselines.jsonl.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.codebook.run import with_few_images
from benchmarks.pruning import results
from benchmarks.pruning.setting import CIFAR_MEAN, CIFAR_STD, SPLIT_SEED, Watcher, say, with_seed
from benchmarks.quantization.mobilenet import ARCHITECTURE
from benchmarks.quantization.setting import SIZE, add_arguments
from compress_export.options import JobOptions
from compress_export.task import Task, load_task
from compressor.checkpoint import Checkpoint
from compressor.errors import InputError
from compressor.models import build_model
from compressor.saved import save_model
from compressor.training import Recipe, fit, predictions

FILE = "baselines.jsonl"
NAME = "mobilenet_v2"
LABEL_SMOOTHING = 0.1


@dataclass(frozen=True)
class Run:
    """What tells one training from another.

    Attributes:
        network: the folder's name.
        epochs: of training.
        rate: highest learning rate of the cycle.
        seed: of first weights and the order of batches.
        images: how many of each part were used; None is all of them.
    """

    network: str
    epochs: int
    rate: float
    seed: int
    images: int | None


def main() -> None:
    """Train for each seed unless that was done before."""
    arguments = _parser().parse_args()
    torch.set_num_threads(arguments.threads)
    path = arguments.results / FILE
    try:
        for seed in arguments.seeds:
            name = NAME if seed == 0 else f"{NAME}-s{seed}"
            run = Run(name, arguments.epochs, arguments.rate, seed, arguments.images)
            if results.finished(path, asdict(run)):
                say(f"{name}: finished before")
            else:
                make(run, arguments.data, arguments.device, arguments.work, path)
    except InputError as error:
        raise SystemExit(f"error: {error}") from None


def make(run: Run, data: str, device: str, work: Path, path: Path) -> None:
    """Train one network, save it, measure it on the test images once, append its row."""
    started = time.monotonic()
    task = _task(run, data, device)
    few = "" if run.images is None else f"-{run.images}images"
    name = f"{run.network}-e{run.epochs}-r{run.rate:g}{few}"
    watcher = Watcher(run.network)
    top1 = fit(
        task.model,
        task.images("baseline"),
        Recipe(run.epochs, run.rate, label_smoothing=LABEL_SMOOTHING),
        task.compute,
        stage="baseline",
        checkpoint=Checkpoint(work / "baselines" / f"{name}.pt"),
        observer=watcher,
    )
    seconds = time.monotonic() - started
    pairs = list(predictions(task.model, task.test_batches(), task.compute))
    right = np.concatenate([(found == labels).numpy() for found, labels in pairs])
    save_model(
        task.model.cpu(), ARCHITECTURE, len(task.data.classes), work / "baselines" / run.network
    )
    row = {
        "validation_top1": top1,
        "test_top1": float(right.mean()),
        "test_right": results.pack(right),
        "seconds_since_last_start": round(seconds),
        "curves": watcher.curves,
    }
    results.append(path, asdict(run) | row)
    say(f"{run.network}: validation {top1:.4f}, test {right.mean():.4f}")


def _task(run: Run, data: str, device: str) -> Task:
    """Load the images, split as for all networks, and first weights that follow from the seed."""
    options = JobOptions(
        board="x86-64",
        model=ARCHITECTURE,
        data=data,
        input_size=SIZE,
        mean=CIFAR_MEAN,
        std=CIFAR_STD,
        seed=SPLIT_SEED,
        device=device,
    )
    task = load_task(options, say)
    torch.manual_seed(run.seed)
    model = build_model(ARCHITECTURE, len(task.data.classes))
    task = with_seed(replace(task, model=model), run.seed)
    return task if run.images is None else with_few_images(task, run.images)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.quantization.train_mobilenet",
        description=(__doc__ or "").splitlines()[0],
    )
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--rate", type=float, default=0.1, help="highest learning rate")
    add_arguments(parser)
    return parser


if __name__ == "__main__":
    main()
