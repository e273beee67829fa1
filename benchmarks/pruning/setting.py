"""What every comparison shares: networks, images, baselines and where work lives."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.pruning.results import FOLDER
from compress_export.options import JobOptions
from compress_export.task import Task, load_task
from compressor.errors import InputError
from compressor.saved import DESCRIPTION_FILE

SHIPPED = Path(__file__).parents[1] / "networks"
"""Small baselines that come with the repository, so that their rows can be added to anywhere."""

SPLIT_SEED = 0
"""The validation images are the same for all runs, since all share one baseline."""


@dataclass(frozen=True)
class Network:
    """How the baseline of a network comes about.

    Attributes:
        checkpoint: pattern of the given weights' file name; None trains from scratch.
        epochs: of adapting or training, until validation accuracy is flat.
        learning_rate: highest rate of the cycle.
        label_smoothing: of the cross-entropy.
        mean, std: of the images that the given weights were trained on; None is ImageNet's.
        architecture: name of the model, where it isn't the network's own.
    """

    checkpoint: str | None
    epochs: int
    learning_rate: float
    label_smoothing: float = 0.0
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    architecture: str | None = None


CIFAR_MEAN = (0.4914, 0.4822, 0.4465)
CIFAR_STD = (0.2470, 0.2435, 0.2616)

NETWORKS: Mapping[str, Network] = {
    "resnet20": Network("resnet20-*.th", epochs=30, learning_rate=0.05),
    # Where one network is turned into files, a third of the epochs lose less than half a point.
    "resnet20-short": Network(
        "resnet20-*.th", epochs=10, learning_rate=0.05, architecture="resnet20"
    ),
    "resnet56": Network("resnet56-*.th", epochs=10, learning_rate=0.05),
    # Published weights have seen the validation images, and a network that keeps more of them
    # remembers more of these: for choices between methods, one that has not.
    "resnet20-unseen": Network(
        None, epochs=60, learning_rate=0.1, mean=CIFAR_MEAN, std=CIFAR_STD, architecture="resnet20"
    ),
    "resnet18": Network(
        "resnet18-*.safetensors", 16, 0.1, label_smoothing=0.1, mean=CIFAR_MEAN, std=CIFAR_STD
    ),
    "vgg16": Network(
        None, epochs=30, learning_rate=0.05, label_smoothing=0.1, mean=CIFAR_MEAN, std=CIFAR_STD
    ),
}


def network_of(name: str, architecture: str) -> str:
    """Return the network that a folder's weights go back to: a key of `NETWORKS`, or architecture.

    Args:
        name: of the folder; it begins with its network, with the run that slimmed it behind a dash.
        architecture: what its description says.
    """
    ours = [key for key in NETWORKS if name == key or name.startswith(f"{key}-")]
    return max(ours, key=len, default=architecture)


@dataclass(frozen=True)
class Setting:
    """Where a benchmark reads and writes, and how it computes.

    Attributes:
        data: folder with train/CLASS and test/CLASS.
        checkpoints: folder with the given weights.
        work: folder for baselines and the checkpoints of unfinished runs.
        results: folder of the files of finished runs.
        device: of training.
    """

    data: Path
    checkpoints: Path | None
    work: Path
    results: Path
    device: str

    def task(self, network: str, *, adapted: bool = True) -> Task:
        """Load a network with its images.

        Args:
            network: key of `NETWORKS`.
            adapted: with the weights of its finished baseline; otherwise with the given ones.

        Raises:
            InputError: no baseline yet, or no given weights.
        """
        plan = NETWORKS[network]
        weights = self.baseline(network) if adapted else self._given(network, plan)
        options = JobOptions(
            board="x86-64",
            model=plan.architecture or network,
            weights=weights,
            data=str(self.data),
            mean=plan.mean,
            std=plan.std,
            seed=SPLIT_SEED,
            device=self.device,
        )
        return load_task(options, say)

    def baseline(self, network: str) -> Path:
        """Return the folder of a finished baseline: one of the work folder's, or a shipped one."""
        own = self.work / "baselines" / network
        for folder in (own, SHIPPED / network):
            if (folder / DESCRIPTION_FILE).exists():
                return folder
        raise InputError(f"no baseline in {own}: run benchmarks.pruning.baselines first")

    def _given(self, network: str, plan: Network) -> Path | None:
        if plan.checkpoint is None:
            return None
        found = sorted((self.checkpoints or Path()).glob(plan.checkpoint))
        if len(found) != 1:
            raise InputError(
                f"--checkpoints: want one {plan.checkpoint} for {network}, got {found}"
            )
        return found[0]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that every benchmark here has."""
    parser.add_argument("--data", type=Path, required=True, help="train/CLASS and test/CLASS")
    parser.add_argument("--checkpoints", type=Path, help="folder of the given weights")
    parser.add_argument("--work", type=Path, required=True, help="baselines and unfinished runs")
    parser.add_argument("--results", type=Path, default=FOLDER, help="files of finished runs")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, help="threads of PyTorch; all cores otherwise")


def open_setting(arguments: argparse.Namespace) -> Setting:
    """Make a setting of parsed arguments; sets PyTorch's threads."""
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    return Setting(
        arguments.data,
        arguments.checkpoints,
        arguments.work,
        arguments.results,
        arguments.device,
    )


def with_seed(task: Task, seed: int) -> Task:
    """Return the same task with another order of batches and other draws, on the same split."""
    return replace(task, seed=seed)


def say(line: str) -> None:
    """Print one line of progress with the time of day."""
    print(time.strftime("%H:%M:%S"), line, flush=True)


class Watcher:
    """Prints one line per epoch and keeps what it printed.

    Args:
        name: of the run.
        on_epoch: called after every epoch.
    """

    def __init__(self, name: str, on_epoch: Callable[[], None] = lambda: None) -> None:
        self._name, self._on_epoch = name, on_epoch
        self.curves: list[dict[str, Any]] = []

    def step(self, stage: str, done: int, total: int, values: Mapping[str, float]) -> None:
        """Batches are not worth a line."""

    def setback(self, stage: str, text: str) -> None:
        """Print why an epoch is done again."""
        say(f"{self._name} {stage}: {text}")

    def policy(self, progress: float, probabilities: object) -> None:
        """Nor are single agents."""

    def epoch(self, stage: str, epoch: int, values: Mapping[str, float]) -> None:
        """Print an epoch's means."""
        self._on_epoch()
        self.curves.append({"stage": stage, "epoch": epoch, **values})
        listing = " ".join(f"{key} {value:.4f}" for key, value in values.items())
        say(f"{self._name} {stage} {epoch}: {listing}")
