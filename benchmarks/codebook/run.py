"""What shared weights cost and save: one run per number of entries and way to find them.

    python -m benchmarks.codebook --data CIFAR --baseline WORK/baselines/resnet20 --work WORK \
        --threads 1

Every run clusters the weights of a saved network, fine-tunes the centroids by the product's recipe,
and appends a row: accuracy before and after, the bytes of the codebook file and of the ordinary
files. A run without a codebook, fine-tuned alike, stands beside them. What is finished is not run
again; what was interrupted goes on from its last epoch.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from benchmarks.codebook.sizes import file_sizes
from benchmarks.pruning import results
from benchmarks.pruning.setting import (
    NETWORKS,
    SPLIT_SEED,
    Watcher,
    network_of,
    say,
    with_seed,
)
from compress_export.data import ImageSet
from compress_export.options import JobOptions
from compress_export.schedule import Epochs, codebook_recipe
from compress_export.task import Task, load_task
from compressor.checkpoint import Checkpoint
from compressor.codebook.fitting import FITS, FitName
from compressor.codebook.sharing import bake, share_weights
from compressor.recalibrate import recalibrate
from compressor.saved import read_description
from compressor.training import evaluate, fit

FOLDER = Path(__file__).parents[1] / "results"
FILE = "codebook.jsonl"
ENTRIES = (2, 4, 16, 64, 256)
DENSE: Literal["none"] = "none"
"""In place of a fit: no codebook, weights train as they are."""

DEFAULT_FITS = (DENSE, "kmeans", "mixture")


@dataclass(frozen=True)
class Run:
    """One run, and what tells it from others.

    Attributes:
        network: name of the saved network's folder.
        entries: of each layer's codebook; 0 without one.
        fit: a key of `FITS`, or `DENSE`.
        epochs: of fine-tuning.
        learning_rate: highest rate.
        seed: of clusters and batches.
        images: how many of each part were used; None is all of them.
    """

    network: str
    entries: int
    fit: FitName | Literal["none"]
    epochs: int
    learning_rate: float
    seed: int
    images: int | None

    @property
    def name(self) -> str:
        """For people, and for the checkpoint's file."""
        few = "" if self.images is None else f"-{self.images}images"
        return (
            f"{self.network}-{self.fit}{self.entries}-e{self.epochs}-r{self.learning_rate:g}"
            f"-s{self.seed}{few}"
        )


def main() -> None:
    """Run what isn't finished yet."""
    arguments = _parser().parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    options = _options(arguments)
    task = load_task(options, say)
    if arguments.images is not None:
        task = with_few_images(task, arguments.images)
    path = arguments.results / FILE
    for run in _runs(arguments, options, task):
        if results.finished(path, asdict(run)):
            say(f"{run.name}: finished before")
            continue
        results.append(path, asdict(run) | measure(run, task, options, arguments.work))


def measure(run: Run, task: Task, options: JobOptions, work: Path) -> dict[str, Any]:
    """Share weights, fine-tune, evaluate; return the figures of the row.

    The test images are read at the end, for the network right after clustering and the finished
    one; nothing is chosen by them.
    """
    start = time.perf_counter()
    task = with_seed(task, run.seed)
    images = task.images("codebook")
    network = _shared(run, task)
    found: dict[str, Any] = {"weight_error": weight_error(task.model, network)}
    plain = evaluate(network, images.validation(), task.compute)
    if run.entries:
        recalibrate(network, images, task.compute)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    found["validation_top1_not_recalibrated"] = plain
    found["validation_top1_before"] = evaluate(network, images.validation(), task.compute)
    checkpoint = work / "codebook" / f"{run.name}.pt"
    watcher = Watcher(run.name)
    recipe = codebook_recipe(options, Epochs(0, 0, 0, run.epochs), task.batch_size)
    found["validation_top1"] = fit(
        network,
        images,
        recipe,
        task.compute,
        stage="codebook",
        checkpoint=Checkpoint(checkpoint),
        observer=watcher,
        teacher=task.compute.place(task.model).eval(),
    )
    after = {name: value.clone() for name, value in network.state_dict().items()}
    for key, state in (("test_top1_before", before), ("test_top1", after)):
        network.load_state_dict(state)
        found[key] = evaluate(network, task.test_batches(), task.compute)
    found["files"] = file_sizes(task, bake(network.cpu().eval()))
    found["curves"], found["seconds"] = watcher.curves, round(time.perf_counter() - start, 1)
    checkpoint.unlink(missing_ok=True)
    say(
        f"{run.name}: test {found['test_top1_before']:.4f} -> {found['test_top1']:.4f}, "
        f"{found['files']['codebook']['bytes']} bytes"
    )
    return found


def with_few_images(task: Task, count: int) -> Task:
    """Return the task with at most so many images in each part, spread evenly over all of them."""

    def few(images: ImageSet) -> ImageSet:
        rows = np.linspace(0, len(images) - 1, min(count, len(images))).astype(np.int64)
        return images.subset(rows)

    data = task.data
    data = replace(
        data, train=few(data.train), validation=few(data.validation), test=few(data.test)
    )
    rows = np.arange(min(len(task.calibration), len(data.train)))
    return replace(task, data=data, calibration=rows)


def _shared(run: Run, task: Task) -> nn.Module:
    """Return a copy of the saved network with shared weights, or as it is for `DENSE`."""
    from copy import deepcopy

    original = task.model.cpu()
    if run.fit == DENSE:
        return deepcopy(original)
    say(f"{run.name}: clustering")
    return share_weights(original, run.entries, fit=FITS[run.fit], seed=run.seed)


def weight_error(original: nn.Module, shared: nn.Module) -> float:
    """Return the sum of squared changes of all layers' weights over the sum of their squares."""
    change = total = 0.0
    for name, layer in original.named_modules():
        if isinstance(layer, _ConvNd | nn.Linear):
            weight, new = (net.get_submodule(name).weight for net in (original, shared))
            assert isinstance(weight, Tensor) and isinstance(new, Tensor)
            change += float((weight - new).detach().double().square().sum())
            total += float(weight.detach().double().square().sum())
    return change / total


def _runs(arguments: argparse.Namespace, options: JobOptions, task: Task) -> Iterator[Run]:
    """Yield all runs that were asked for, the network without a codebook first."""
    epochs = arguments.epochs
    rate = codebook_recipe(options, Epochs(0, 0, 0, epochs), task.batch_size).learning_rate
    for seed in arguments.seeds:
        for fit_name in arguments.fits:
            for entries in [0] if fit_name == DENSE else arguments.entries:
                name = arguments.baseline.name
                yield Run(name, entries, fit_name, epochs, rate, seed, arguments.images)


def _options(arguments: argparse.Namespace) -> JobOptions:
    architecture = read_description(arguments.baseline).architecture
    plan = NETWORKS.get(network_of(arguments.baseline.name, architecture))
    return JobOptions(
        board="x86-64",
        model=architecture,
        weights=arguments.baseline,
        data=str(arguments.data),
        mean=plan.mean if plan else None,
        std=plan.std if plan else None,
        learning_rate=arguments.learning_rate,
        seed=SPLIT_SEED,
        device=arguments.device,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.codebook", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--data", required=True, help="train/CLASS and test/CLASS")
    parser.add_argument("--baseline", type=Path, required=True, help="folder of a saved network")
    parser.add_argument("--work", type=Path, required=True, help="checkpoints of unfinished runs")
    parser.add_argument("--results", type=Path, default=FOLDER, help=f"folder of {FILE}")
    parser.add_argument("--entries", type=int, nargs="+", default=list(ENTRIES))
    parser.add_argument("--fits", nargs="+", choices=[DENSE, *FITS], default=list(DEFAULT_FITS))
    parser.add_argument("--epochs", type=int, default=5, help="of fine-tuning")
    parser.add_argument("--learning-rate", type=float, help="the product's otherwise")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--images", type=int, help="try it on so many images of each part")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, help="threads of PyTorch; all cores otherwise")
    return parser
