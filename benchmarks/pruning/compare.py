"""Prune one network with many methods at equal epochs: `python -m benchmarks.pruning.compare`.

Every run is NETWORK x METHOD x TARGET x SEED. It starts from the network's baseline, spends the
same total number of epochs on search and fine-tuning, and appends one row to a results file. TARGET
is a share of one cost, or of several at once: `--cost macs+weight_bytes --shares 0.5`. The method
`continued` prunes nothing; give it `--shares 1`.
Finished runs are skipped, an interrupted one resumes from its last epoch. The slimmed networks stay
in WORK/networks.

`--screen` writes to screening.jsonl and leaves the test images alone: settings are chosen there.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

from torch import nn

from benchmarks.pruning import results
from benchmarks.pruning.baselines import right_answers
from benchmarks.pruning.clock import Clock
from benchmarks.pruning.page.records import CONTINUED
from benchmarks.pruning.peer_training import NothingToValidate
from benchmarks.pruning.setting import (
    NETWORKS,
    Setting,
    Watcher,
    add_arguments,
    open_setting,
    say,
    with_seed,
)
from benchmarks.pruning.variants import VARIANTS, Variant
from boards import load_board
from compress_export.task import Task
from compressor.capacity import scale_dropout, scaled_decay, share_left
from compressor.checkpoint import Checkpoint
from compressor.cost import CostName, Limits, NetworkCosts, as_tensor
from compressor.graph import ChannelGraph, channel_graph
from compressor.methods.method import PruneTask
from compressor.recalibrate import recalibrate
from compressor.saved import load_model, save_model
from compressor.shrink import Shrinking
from compressor.training import Images, Recipe, evaluate, fit

COSTS: tuple[CostName, ...] = ("macs", "weight_bytes", "activation_bytes")
_CHECKPOINTS, _SECONDS = ("search.pt", "finetune.pt"), "seconds.json"
"""Of an unfinished run."""

CHANNEL_STEP = load_board("x86-64").channel_steps["int8"]


@dataclass(frozen=True)
class Run:
    """One row of the results.

    Attributes:
        network: key of `NETWORKS`.
        variant: key of `VARIANTS`.
        cost: what the target limits, names of costs joined by a plus.
        share: of each of them, against the unpruned network, that may remain.
        seed: of the order of batches and of everything drawn.
        epochs: search and fine-tuning together.
        search_epochs: of which the search takes these, where the method searches.
        learning_rate: highest rate of search and fine-tuning.
    """

    network: str
    variant: str
    cost: str
    share: float
    seed: int
    epochs: int
    search_epochs: int
    learning_rate: float

    @property
    def shares(self) -> dict[CostName, float]:
        """Share that may remain, by cost."""
        return {name: self.share for name in COSTS if name in self.cost.split("+")}

    @property
    def name(self) -> str:
        """Name of the run's folder."""
        return (
            f"{self.network}-{self.variant}-{self.cost}{self.share:g}-s{self.seed}"
            f"-e{self.search_epochs}of{self.epochs}-lr{self.learning_rate:g}"
        )


def main() -> None:
    """Do every run that is missing."""
    arguments = _parser().parse_args()
    setting = open_setting(arguments)
    file = setting.results / ("screening.jsonl" if arguments.screen else "runs.jsonl")
    task = setting.task(arguments.network)
    for seed in arguments.seeds:
        for share in arguments.shares:
            for name in arguments.methods:
                variant = VARIANTS[name]
                search = arguments.search_epochs if variant.searches else 0
                run = Run(
                    arguments.network, name, arguments.cost, share, seed,
                    arguments.epochs, search, arguments.learning_rate,
                )  # fmt: skip
                if results.finished(file, asdict(run)):
                    say(f"{run.name}: finished before")
                else:
                    do(run, variant, task, setting, file, read_test=not arguments.screen)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--network", choices=list(NETWORKS), required=True)
    parser.add_argument("--methods", nargs="+", choices=list(VARIANTS), required=True)
    parser.add_argument("--cost", choices=_targets(), default="macs")
    parser.add_argument("--shares", nargs="+", type=float, required=True)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--search-epochs", type=int, default=6)
    parser.add_argument("--learning-rate", type=float, default=0.05)
    parser.add_argument("--screen", action="store_true")
    add_arguments(parser)
    return parser


def _targets() -> list[str]:
    """Return the costs and their combinations."""
    return ["+".join(some) for n in (1, 2, 3) for some in combinations(COSTS, n)]


def do(
    run: Run, variant: Variant, baseline: Task, setting: Setting, file: Path, *, read_test: bool
) -> None:
    """Prune, fine-tune, measure, save, append."""
    task = fresh(run, baseline, setting)
    graph = channel_graph(task.model, task.example())
    costs = NetworkCosts(graph)
    limits = Limits(costs, costs.shares(run.shares, as_tensor(graph.all_kept())))
    slimmed, row = prune_and_recover(run, variant, task, setting, graph, limits)
    if read_test:
        row |= on_test_images(task, slimmed)
    if variant.saveable:
        save_model(slimmed.cpu(), task.architecture, 10, setting.work / "networks" / run.name)
    results.append(file, row)
    test_top1 = row.get("test_top1", float("nan"))
    say(f"{run.name}: validation {row['validation_top1']:.4f}, test {test_top1:.4f}")
    drop_checkpoints(run, setting)


def fresh(run: Run, baseline: Task, setting: Setting) -> Task:
    """Return the task with a copy of the baseline that a run may change, and the run's seed."""
    return with_seed(replace(baseline, model=_copy(setting, run.network)), run.seed)


def prune_and_recover(
    run: Run, variant: Variant, task: Task, setting: Setting, graph: ChannelGraph, limits: Limits
) -> tuple[nn.Module, dict[str, Any]]:
    """Prune a task's network to given limits and fine-tune it.

    Args:
        run: its epochs and rates count, not its target.
        task: as `fresh` made it.
        graph: of its network.
        limits: with costs of that graph.

    Returns:
        The slimmed network and its row, which knows nothing of the test images.
    """
    folder = _folder(run, setting)
    teacher = task.compute.place(_copy(setting, run.network)).eval()
    if not any((folder / name).exists() for name in _CHECKPOINTS):
        (folder / _SECONDS).unlink(missing_ok=True)  # of a run that is begun anew
    clock = Clock(folder / _SECONDS)
    watcher = Watcher(run.name, on_epoch=clock.stop)
    clock.start("choice")
    slimmed = variant.prune(
        PruneTask(
            start=Shrinking.whole(task.model, graph),
            graph=graph,
            limits=limits,
            channel_step=CHANNEL_STEP,
            images=task.images("search"),
            recipe=Recipe(
                run.search_epochs,
                run.learning_rate,
                distillation=variant.distillation,
                warmup_share=0.1,
                decays=False,
            ),
            compute=task.compute,
            seed=run.seed,
            checkpoint=Checkpoint(folder / "search.pt"),
            observer=watcher,
            teacher=teacher if variant.distillation else None,
        ),
    )
    clock.stop()
    clock.start("finetune")
    top1 = _finetune(slimmed, run, variant, task, teacher, folder, watcher)
    clock.stop()
    return slimmed, asdict(run) | {
        "validation_top1": top1,
        **_measures(slimmed, task, limits.costs, graph),
        "seconds": clock.seconds,
        "cpu_seconds": clock.cpu_seconds,
        "curves": watcher.curves,
    }


def on_test_images(task: Task, slimmed: nn.Module) -> dict[str, Any]:
    """Return a row's figures of the test images."""
    right = right_answers(replace(task, model=slimmed))
    return {"test_top1": float(right.mean()), "test_right": results.pack(right)}


def drop_checkpoints(run: Run, setting: Setting) -> None:
    """Remove what an interrupted run would have gone on from."""
    for leftover in (*_CHECKPOINTS, _SECONDS):
        (_folder(run, setting) / leftover).unlink(missing_ok=True)


def _folder(run: Run, setting: Setting) -> Path:
    return setting.work / "runs" / run.name


def _finetune(
    slimmed: nn.Module,
    run: Run,
    variant: Variant,
    task: Task,
    teacher: nn.Module,
    folder: Path,
    watcher: Watcher,
) -> float:
    """Recover a slimmed network in place; return its validation top-1, a fraction.

    The continued baseline keeps its last epoch: published weights remember the validation images,
    and on these no later epoch may look as good as what was given.
    """
    images: Images = task.images("finetune")
    if run.variant == CONTINUED:
        images = NothingToValidate(images)
    recipe = Recipe(
        run.epochs - (run.search_epochs if variant.searches else 0),
        run.learning_rate,
        distillation=0.0 if variant.own_recovery else 0.5,
        warmup_share=0.0 if variant.searches else 0.1,
    )
    if not variant.own_recovery:
        scale_dropout(slimmed, teacher, task.example())
        recalibrate(slimmed, images, task.compute)
        recipe = scaled_decay(recipe, share_left(slimmed, teacher))
    top1 = fit(
        slimmed,
        images,
        recipe,
        task.compute,
        stage="finetune",
        checkpoint=Checkpoint(folder / "finetune.pt"),
        observer=watcher,
        teacher=teacher if recipe.distills else None,
    )
    if run.variant == CONTINUED:
        return evaluate(slimmed, task.images("finetune").validation(), task.compute)
    return top1


def _copy(setting: Setting, network: str) -> nn.Module:
    return load_model(setting.baseline(network))


def _measures(
    model: nn.Module, task: Task, before: NetworkCosts, unpruned: ChannelGraph
) -> dict[str, Any]:
    """Return what is left of the costs, and the widths of all layers."""
    graph = channel_graph(model, task.example())
    after, everything = NetworkCosts(graph), as_tensor(graph.all_kept())
    whole = as_tensor(unpruned.all_kept())
    return {
        "shares": {
            n: float(after.value(n, everything)) / float(before.value(n, whole)) for n in COSTS
        },
        "parameters": sum(p.numel() for p in model.parameters()),
        "int8_weight_bytes": int(after.weight_bytes(everything)),
        "widths": {layer.module: len(layer.out_classes) for layer in graph.layers},
    }


if __name__ == "__main__":
    main()
