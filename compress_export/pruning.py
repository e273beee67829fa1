"""The pruning stage: search, projection, slimming, fine-tuning; once, or rung by rung."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from compress_export.options import JobOptions
from compress_export.progress import RunLog
from compress_export.schedule import Epochs, finetune_recipe, search_recipe
from compress_export.targets import FIRST_RUNG, Target
from compress_export.task import Task
from compressor.capacity import scale_dropout, scaled_decay, share_left
from compressor.checkpoint import Checkpoint
from compressor.cost import Limits, NetworkCosts, as_tensor
from compressor.decore.paper import DEFAULT_PENALTY
from compressor.decore.projection import TargetError, project
from compressor.graph import ChannelGraph, Keep, channel_graph
from compressor.methods.learned import Paper
from compressor.methods.method import Method, PruneTask
from compressor.methods.registry import METHODS
from compressor.methods.rounds import in_rounds
from compressor.recalibrate import recalibrate
from compressor.recipe import Recipe
from compressor.saved import load_model, save_model
from compressor.shrink import Shrinking
from compressor.training import fit

if TYPE_CHECKING:
    from torch import nn

    from compressor.cost import CostName

_RUNG_RATIO = 0.5
_MAX_RUNGS = 2
"""Below 0.2 of the MACs, picking the best of many epochs on few validation images misleads."""

_DROP_MARGIN = 0.5
"""Share of the allowed drop that a rung may use up on the validation images: files and test images
bring a drop of their own."""

_VERIFIED_IMAGES = 4


@dataclass(frozen=True)
class Pruned:
    """A slimmed and fine-tuned network.

    Attributes:
        model: on the CPU, in eval mode.
        validation_top1: fraction.
        difference: masked against slimmed, relative, in float64.
        shares: cost name -> share of the unpruned network's cost that is left.
    """

    model: nn.Module
    validation_top1: float
    difference: float
    shares: dict[str, float]


def prune(
    task: Task,
    baseline: nn.Module,
    baseline_top1: float,
    target: Target,
    options: JobOptions,
    epochs: Epochs,
    *,
    channel_step: int,
    bytes_per_value: int,
    max_drop: float,
    work: Path,
    log: RunLog,
) -> Pruned | None:
    """Prune a network to a target.

    Where the target is the smallest net within the accuracy drop, goes down a ladder: every rung
    halves the MACs of the one before and starts from its net; the last one within the drop wins.

    Args:
        baseline: the trained network; it is also the teacher unless the task has another.
        baseline_top1: its validation top-1, a fraction.
        channel_step: multiple that kept widths are rounded to.
        bytes_per_value: of weights and activations in the files that go to the board.
        max_drop: accuracy on the validation images that may be lost, in points.
        work: folder for checkpoints, one sub-folder per rung.

    Returns:
        None where no rung stays within the drop, or nothing has to shrink.

    Raises:
        TargetError: no choice of channels meets the target.
    """
    stage = _Stage(task, baseline, options, epochs, channel_step, bytes_per_value, log)
    if not target.limits:
        return None
    if not target.smallest:
        return stage.rung(baseline, target.limits, work / "rung-1")
    if options.method == "paper":
        # Lambda decides how far the paper's agents go; there is nothing to walk down.
        return stage.rung(baseline, {}, work / "rung-1")
    return _ladder(stage, baseline_top1, target.limits["macs"], max_drop, work)


def _ladder(
    stage: _Stage, baseline_top1: float, limit: float, max_drop: float, work: Path
) -> Pruned | None:
    """Halve the MACs until the accuracy on the validation images gives out."""
    best: Pruned | None = None
    # One image more or less must not decide where there are few.
    allowed = max(max_drop * _DROP_MARGIN, 100 / len(stage.task.data.validation))
    for rung in range(1, _MAX_RUNGS + 1):
        start = stage.original if best is None else best.model
        share = FIRST_RUNG * _RUNG_RATIO ** (rung - 1)
        stage.log.say(f"rung {rung}: {share:.3g} of the MACs")
        try:
            found = stage.rung(start, {"macs": limit}, work / f"rung-{rung}")
        except TargetError as error:
            stage.log.say(f"rung {rung}: {error}")
            break
        drop = (baseline_top1 - found.validation_top1) * 100
        accepted = drop <= allowed + 1e-9
        stage.log.say(
            f"rung {rung}: validation top-1 {found.validation_top1:.4f}, {drop:+.2f} points lost, "
            f"{'within' if accepted else 'beyond'} {allowed:g}"
        )
        if not accepted:
            break
        best, limit = found, limit * _RUNG_RATIO
    return best


@dataclass(frozen=True)
class _Stage:
    """What every rung needs."""

    task: Task
    original: nn.Module
    options: JobOptions
    epochs: Epochs
    channel_step: int
    bytes_per_value: int
    log: RunLog

    def rung(self, start: nn.Module, limits: dict[CostName, float], work: Path) -> Pruned:
        """Search, slim and fine-tune once, or load what an interrupted run had finished."""
        finished = work / "network"
        if (work / "figures.json").exists():
            figures = json.loads((work / "figures.json").read_text(encoding="utf-8"))
            return Pruned(load_model(finished), **figures)
        pruned = self._run(start, limits, work)
        save_model(pruned.model, self.task.architecture, len(self.task.data.classes), finished)
        figures = {
            "validation_top1": pruned.validation_top1,
            "difference": pruned.difference,
            "shares": pruned.shares,
        }
        (work / "figures.json").write_text(json.dumps(figures), encoding="utf-8")
        return pruned

    def _run(self, model: nn.Module, limits: dict[CostName, float], work: Path) -> Pruned:
        task, log = self.task, self.log
        graph = channel_graph(model.cpu(), task.example())
        costs = NetworkCosts(graph, self.bytes_per_value, self.bytes_per_value)
        _refuse_impossible(limits)
        bound = Limits(costs, limits)
        # Can the target be met at all? Known before hours of search.
        project(np.zeros(graph.class_count), graph, bound, self.channel_step)
        with log.timed("search"):
            choice = self._method()(self._prune_task(model, graph, bound, work))
            choice.left.model.cpu()
            examples = next(iter(task.images("finetune").validation()))[0][:_VERIFIED_IMAGES]
            slimmed, difference = choice.left.cut(choice.keep, examples)
        shares = _shares(costs, graph, choice.keep)
        log.say(
            f"slimmed to {shares['macs']:.3f} of the MACs and {shares['weight_bytes']:.3f} of the "
            f"weights; masked and slimmed differ by {difference:.0e}"
        )
        with log.timed("finetune"):
            top1 = self._recover(slimmed, work)
        return Pruned(slimmed.cpu().eval(), top1, difference, shares)

    def _recover(self, model: nn.Module, work: Path) -> float:
        """Fine-tune a slimmed network in place; return its validation top-1, a fraction."""
        task, images = self.task, self.task.images("finetune")
        scale_dropout(model, self.original, task.example())
        recalibrate(model, images, task.compute)
        recipe = finetune_recipe(self.options, self.epochs, task.batch_size)
        return fit(
            model,
            images,
            scaled_decay(recipe, share_left(model, self.original)),
            task.compute,
            stage="finetune",
            checkpoint=Checkpoint(work / "finetune.pt"),
            observer=self.log.within(work.name),
            teacher=self._teacher(recipe),
        )

    def _teacher(self, recipe: Recipe) -> nn.Module | None:
        if not recipe.distills:
            return None
        teacher = self.original if self.task.teacher is None else self.task.teacher
        return self.task.compute.place(teacher).eval()

    def _method(self) -> Method:
        if self.options.method == "paper":
            return Paper(self.options.penalty or DEFAULT_PENALTY)
        method = METHODS[self.options.method]
        return in_rounds(method, self.options.rounds) if self.options.rounds > 1 else method

    def _prune_task(
        self, model: nn.Module, graph: ChannelGraph, bound: Limits, work: Path
    ) -> PruneTask:
        task = self.task
        recipe = search_recipe(self.options, self.epochs, task.batch_size)
        start = copy.deepcopy(model)
        scale_dropout(start, self.original, task.example())  # a loaded rung has the original's
        return PruneTask(
            start=Shrinking.whole(start, graph),
            graph=graph,
            limits=bound,
            channel_step=self.channel_step,
            images=task.images("search"),
            recipe=recipe,
            compute=task.compute,
            seed=task.seed,
            checkpoint=Checkpoint(work / "search.pt"),
            observer=self.log.within(work.name),
            teacher=self._teacher(recipe),
        )


def _refuse_impossible(limits: dict[CostName, float]) -> None:
    for name, limit in limits.items():
        if limit <= 0:
            raise TargetError(
                f"no byte is left for {name}: what the files hold beside the weights is already "
                f"{-limit:.0f} bytes above the target",
                None,
            )


def _shares(costs: NetworkCosts, graph: ChannelGraph, keep: Keep) -> dict[str, float]:
    names: tuple[CostName, ...] = ("macs", "weight_bytes", "activation_bytes")
    before, after = as_tensor(graph.all_kept()), as_tensor(keep)
    return {n: float(costs.value(n, after) / costs.value(n, before)) for n in names}
