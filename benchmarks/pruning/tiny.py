"""INT8 files of at most 96 KiB: `python -m benchmarks.pruning.tiny`.

Trains a ResNet-8 of MLPerf Tiny's form on the training images that all networks here see, one per
seed, keeps the epoch that the validation images choose, and exports it to INT8 TFLite as the
product does. `--against RUN ...` exports slimmed networks of `benchmarks.pruning.compare` in the
same way. Test accuracy of the float network and of the file go to results/pruning/tiny.jsonl.

An interrupted training goes on from its last epoch; finished rows are skipped. The files stay in
WORK/files/NAME.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import nn

from benchmarks.pruning import results
from benchmarks.pruning.baselines import right_answers
from benchmarks.pruning.files import evaluate_in_turns, export, network_folder
from benchmarks.pruning.page.file_tables import tiny_table
from benchmarks.pruning.resnet8 import ARCHITECTURE, resnet8
from benchmarks.pruning.setting import (
    CIFAR_MEAN,
    CIFAR_STD,
    NETWORKS,
    SPLIT_SEED,
    Setting,
    Watcher,
    add_arguments,
    network_of,
    open_setting,
    say,
    with_seed,
)
from compress_export.options import JobOptions
from compress_export.task import Task, load_task
from compressor.checkpoint import Checkpoint
from compressor.errors import InputError
from compressor.saved import load_model, read_description, save_model
from compressor.training import Recipe, fit

FORMAT = "tflite"
FILE = "tiny.jsonl"


@dataclass(frozen=True)
class Training:
    """One ResNet-8.

    Attributes:
        seed: of its first weights and of the order of batches; the split is everyone's.
        epochs: of training.
        learning_rate: highest rate of the cycle.
        weight_decay: the reference's penalty is 1e-4 w^2 per weight, whose gradient is 2e-4 w.
    """

    seed: int
    epochs: int
    learning_rate: float
    weight_decay: float

    @property
    def name(self) -> str:
        """Name of its folders in WORK."""
        return (
            f"resnet8-s{self.seed}-e{self.epochs}-lr{self.learning_rate:g}-wd{self.weight_decay:g}"
        )


def main() -> None:
    """Make every row that is missing; print the table."""
    arguments = _parser().parse_args()
    setting = open_setting(arguments)
    trainings = [
        Training(seed, arguments.epochs, arguments.learning_rate, arguments.weight_decay)
        for seed in arguments.seeds
    ]
    try:
        networks = {run: _network(run, setting) for run in arguments.against}
        _train_missing(trainings, setting)
        _measure_missing(networks, setting)
    except InputError as error:
        raise SystemExit(f"error: {error}") from None
    shown = {training.name for training in trainings} | set(networks)
    print(tiny_table([row for row in results.rows(setting.results / FILE) if row["run"] in shown]))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--learning-rate", type=float, default=0.1)
    parser.add_argument("--weight-decay", type=float, default=2e-4)
    parser.add_argument(
        "--against", nargs="+", metavar="RUN", default=[], help="folders in WORK/networks"
    )
    add_arguments(parser)
    return parser


def _network(run: str, setting: Setting) -> str:
    """Return the network that a run began with; better known before hours of training.

    Raises:
        InputError: it isn't saved, or its baseline is missing.
    """
    network = network_of(run, read_description(network_folder(setting, run)).architecture)
    if network not in NETWORKS:
        raise InputError(f"--against {run}: holds a {network}, allowed are {', '.join(NETWORKS)}")
    setting.baseline(network)
    return network


def _train_missing(trainings: Sequence[Training], setting: Setting) -> None:
    missing = [training for training in trainings if not _finished(training.name, setting)]
    if not missing:
        return
    images = resnet8_task(setting)
    for training in missing:
        checkpoint = setting.work / "runs" / training.name / "training.pt"
        row = train(training, images, setting, Checkpoint(checkpoint))
        results.append(setting.results / FILE, row)
        checkpoint.unlink()


def _measure_missing(networks: Mapping[str, str], setting: Setting) -> None:
    """Measure slimmed networks, run -> network; the images are read once per network."""
    missing = [run for run in networks if not _finished(run, setting)]
    for network in dict.fromkeys(networks[run] for run in missing):
        task = setting.task(network)
        for run in (run for run in missing if networks[run] == network):
            model = load_model(network_folder(setting, run))
            row = {"run": run, "network": network, **measure(run, model, "slim", task, setting)}
            results.append(setting.results / FILE, row)


def _finished(run: str, setting: Setting) -> bool:
    if not results.finished(setting.results / FILE, {"run": run}):
        return False
    say(f"{run}: finished before")
    return True


def resnet8_task(setting: Setting) -> Task:
    """Load the images with the split of all other networks; the weights don't count."""
    options = JobOptions(
        board="x86-64",
        model=ARCHITECTURE,
        data=str(setting.data),
        input_size=32,
        mean=CIFAR_MEAN,
        std=CIFAR_STD,
        seed=SPLIT_SEED,
        device=setting.device,
    )
    return load_task(options, say)


def train(
    training: Training, images: Task, setting: Setting, checkpoint: Checkpoint
) -> dict[str, Any]:
    """Train one ResNet-8, save it, measure it and its file; return the row.

    Args:
        images: a task with these images; its network isn't used.
        checkpoint: from which an interrupted training goes on.
    """
    torch.manual_seed(training.seed)
    classes = len(images.data.classes)
    task = with_seed(replace(images, model=resnet8(classes)), training.seed)
    watcher, started = Watcher(training.name), time.monotonic()
    validation_top1 = fit(
        task.model,
        task.images("baseline"),
        Recipe(training.epochs, training.learning_rate, weight_decay=training.weight_decay),
        task.compute,
        stage="baseline",
        checkpoint=checkpoint,
        observer=watcher,
    )
    seconds = time.monotonic() - started
    save_model(task.model.cpu(), ARCHITECTURE, classes, setting.work / "networks" / training.name)
    return {
        "run": training.name,
        "network": "resnet8",
        **asdict(training),
        "validation_top1": validation_top1,
        **measure(training.name, task.model, "baseline", task, setting),
        "seconds_since_last_start": round(seconds),
        "curves": watcher.curves,
    }


def measure(run: str, model: nn.Module, stage: str, task: Task, setting: Setting) -> dict[str, Any]:
    """Export a network to INT8 TFLite; return size, and test accuracy of both.

    Args:
        run: name of the folder of files.
        stage: "baseline" or "slim".
        task: of the network's own preprocessing.
    """
    right = right_answers(replace(task, model=model))
    folder = export(task, model, stage, setting.work / "files" / run, (FORMAT,), ("int8",))
    (file,) = evaluate_in_turns([folder], FORMAT, task.data.test, threads=1)
    figures = file.figures(task.data.test.labels)
    row = {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "test_images": len(right),
        "test_top1": float(right.mean()),
        "test_right": results.pack(right),
        "size_bytes": figures["size_bytes"],
        "int8_test_top1": figures["top1"],
        "int8_test_right": figures["right"],
    }
    say(
        f"{run}: {row['size_bytes']} bytes, test {row['test_top1']:.4f}, INT8 {figures['top1']:.4f}"
    )
    return row


if __name__ == "__main__":
    main()
