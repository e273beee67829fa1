"""The pruning stage: search, projection, slimming, fine-tuning; once, or rung by rung."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from compress_export.measured_limits import meet_limits
from compress_export.policy_trace import summarize
from compress_export.progress import TRACE_FILE
from compress_export.reached import Reached, reached
from compress_export.schedule import finetune_recipe, search_recipe
from compress_export.targets import (
    BYTES_PER_VALUE,
    DEFAULT_MAX_DROP,
    FIRST_RUNG,
    Target,
    channel_step,
)
from compress_export.tuning import teacher_of
from compress_export.whole_files import write_whole
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
from compressor.paired import PairedDifference
from compressor.recalibrate import recalibrate
from compressor.saved import load_model, save_model
from compressor.shrink import Shrinking
from compressor.training import fit, image_scores
from compressor.verify import probe_images

if TYPE_CHECKING:
    from torch import Tensor, nn

    from compress_export.job import Job
    from compressor.cost import CostName

_RUNG_RATIO = 0.5
_MAX_RUNGS = 2
"""Below 0.2 of the MACs, few validation images tell too little."""

AGENTS_FILE = "agents.json"
"""In the folder of a rung, for the report; see docs/report-html.md."""

_DROP_MARGIN = 0.5
"""Share of the allowed drop that a rung may use up on the validation images: files and test images
bring a drop of their own."""


@dataclass(frozen=True)
class Pruned:
    """A slimmed and fine-tuned network.

    Attributes:
        model: on the CPU, in eval mode.
        validation_score: mean of the metric, top-1 by default, a fraction.
        difference: masked against slimmed, relative, in float64.
        limits: how near it comes to the limits of the search.
    """

    model: nn.Module
    validation_score: float
    difference: float
    limits: tuple[Reached, ...]


@dataclass(frozen=True)
class Start:
    """A network to prune.

    Attributes:
        model: trained, on the CPU.
        graph: its channel graph.
        costs: what choices of its channels cost in the files that go to the board.
    """

    model: nn.Module
    graph: ChannelGraph
    costs: NetworkCosts

    @classmethod
    def of(cls, model: nn.Module, job: Job) -> Start:
        """Start from a network of a job; its costs know no latency."""
        graph = channel_graph(model.cpu(), job.task.example())
        widths = BYTES_PER_VALUE[job.exports.precision]
        return cls(model, graph, NetworkCosts(graph, *widths))


def prune_to(job: Job, target: Target, start: Start) -> Pruned | None:
    """Prune a job's network to a target.

    Where the target is the smallest net within the accuracy drop, goes down a ladder: every rung
    halves the MACs of the one before and starts from its net; the last one within the drop wins.

    Args:
        start: the job's baseline, which is also the teacher unless the task has another; its costs
            have latency tables where the target has a limit for it.

    Returns:
        None where no rung stays within the drop, or nothing has to shrink.

    Raises:
        TargetError: no choice of channels meets the target.
    """
    if not target.limits:
        return None
    if not target.smallest:
        return _Rung(job, start, target.limits, 1).run()
    if job.options.method in ("paper", "dead"):
        # They decide by themselves how far they go; there is nothing to walk down.
        return _Rung(job, start, {}, 1).run()
    return _ladder(job, start, target.limits["macs"])


def _ladder(job: Job, start: Start, limit: float) -> Pruned | None:
    """Halve the MACs until the accuracy on the validation images gives out."""
    best: Pruned | None = None
    max_drop = job.board.budgets.limits().get("accuracy_drop_points", DEFAULT_MAX_DROP)
    allowed = max_drop * _DROP_MARGIN
    scores_before = _validation_scores(job, job.baseline)
    for rung in range(1, _MAX_RUNGS + 1):
        if best is not None:
            start = Start.of(best.model, job)
        share = FIRST_RUNG * _RUNG_RATIO ** (rung - 1)
        job.log.say(f"rung {rung}: {share:.3g} of the MACs")
        try:
            found = _Rung(job, start, {"macs": limit}, rung).run()
        except TargetError as error:
            job.log.say(f"rung {rung}: {error}")
            break
        drop = PairedDifference.of(scores_before, _validation_scores(job, found.model))
        accepted = may_be_within(drop, allowed)
        job.log.say(
            f"rung {rung}: validation {job.task.objective.metric_name} "
            f"{found.validation_score:.4f}, {100 * drop.mean:+.2f} points lost, give or take "
            f"{100 * drop.standard_error:.2f}, {'within' if accepted else 'beyond'} {allowed:g}"
        )
        if not accepted:
            break
        best, limit = found, limit * _RUNG_RATIO
    return best


def may_be_within(drop: PairedDifference, allowed_points: float) -> bool:
    """Whether a drop is allowed, give or take its error: an image or two must not decide where
    there are few.
    """
    return 100 * (drop.mean - drop.standard_error) <= allowed_points + 1e-9


def _validation_scores(job: Job, model: nn.Module) -> Tensor:
    task = job.task
    batches = task.images("finetune").validation()
    scores = image_scores(model, batches, task.compute, task.objective)
    model.cpu()
    return scores


@dataclass(frozen=True)
class _Rung:
    """One search with its fine-tuning.

    Attributes:
        start: the network that it starts from.
        limits: what the slimmed network may cost.
        number: from 1; names the folder of checkpoints and curves.
    """

    job: Job
    start: Start
    limits: Mapping[CostName, float]
    number: int

    @property
    def _work(self) -> Path:
        return self.job.work / f"rung-{self.number}"

    @property
    def _name(self) -> str:
        return self._work.relative_to(self.job.folder.run).as_posix()

    def run(self) -> Pruned:
        """Search, slim and fine-tune, or load what an interrupted run had finished."""
        task, network = self.job.task, self._work / "network"
        figures_file = self._work / "figures.json"
        if figures_file.exists():
            figures = json.loads(figures_file.read_text(encoding="utf-8"))
            limits = tuple(Reached.from_json(entry) for entry in figures.pop("limits"))
            model = load_model(network)
            # Saving drops it; --codebook, --qat-epochs and the next rung train with it.
            scale_dropout(model, self.job.baseline, task.example())
            return Pruned(model, limits=limits, **figures)
        pruned = self._run()
        save_model(pruned.model, task.architecture, len(task.data.classes), network)
        figures = {
            "validation_score": pruned.validation_score,
            "difference": pruned.difference,
            "limits": [entry.to_json() for entry in pruned.limits],
        }
        write_whole(figures_file, json.dumps(figures))
        return pruned

    def _run(self) -> Pruned:
        job, graph = self.job, self.start.graph
        step = channel_step(job.board, job.exports.precision)
        _refuse_impossible(self.limits)
        bound = Limits(self.start.costs, self.limits)
        # Can the target be met at all? Known before hours of search.
        project(np.zeros(graph.class_count), graph, bound, step)
        with job.log.timed("search"):
            choice = self._method()(self._prune_task(bound, step))
            choice.left.model.cpu()
        summarize(self._work / TRACE_FILE, graph, self._work / AGENTS_FILE)
        images = probe_images(job.task.images("finetune"))
        note = self._work / "channels.json"
        keep, bound = meet_limits(job, choice, graph, bound, images, note)
        slimmed, difference = choice.left.cut(keep, images)
        self._say_slimmed(keep, difference)
        limits = reached(keep, choice.ranking, graph, bound, step)
        for entry in limits:
            job.log.say(f"limit: {entry.line}")
        with job.log.timed("finetune"):
            score = self._recover(slimmed)
        return Pruned(slimmed.cpu().eval(), score, difference, limits)

    def _say_slimmed(self, keep: Keep, difference: float) -> None:
        costs, whole, left = self.start.costs, self.start.graph.all_kept(), as_tensor(keep)
        names: tuple[CostName, ...] = ("macs", "weight_bytes")
        macs, weights = (
            float(costs.value(name, left) / costs.value(name, as_tensor(whole))) for name in names
        )
        self.job.log.say(
            f"slimmed to {macs:.3f} of the MACs and {weights:.3f} of the weights; masked and "
            f"slimmed differ by {difference:.0e}"
        )

    def _recover(self, model: nn.Module) -> float:
        """Fine-tune a slimmed network in place; return its validation score, a fraction."""
        job, task = self.job, self.job.task
        images = task.images("finetune")
        scale_dropout(model, job.baseline, task.example())
        recalibrate(model, images, task.compute)
        recipe = finetune_recipe(job.options, job.epochs, task.batch_size)
        return fit(
            model,
            images,
            scaled_decay(recipe, share_left(model, job.baseline)),
            task.compute,
            stage="finetune",
            checkpoint=Checkpoint(self._work / "finetune.pt"),
            observer=job.log.within(self._name),
            teacher=teacher_of(job, recipe),
            objective=task.objective,
        )

    def _method(self) -> Method:
        options = self.job.options
        if options.method == "paper":
            return Paper(options.penalty or DEFAULT_PENALTY)
        method = METHODS[options.method]
        return in_rounds(method, options.rounds) if options.rounds > 1 else method

    def _prune_task(self, bound: Limits, channel_step: int) -> PruneTask:
        job, task = self.job, self.job.task
        recipe = search_recipe(job.options, job.epochs, task.batch_size)
        start = copy.deepcopy(self.start.model)
        return PruneTask(
            start=Shrinking.whole(start, self.start.graph),
            graph=self.start.graph,
            limits=bound,
            channel_step=channel_step,
            images=task.images("search"),
            recipe=recipe,
            compute=task.compute,
            seed=task.seed,
            checkpoint=Checkpoint(self._work / "search.pt"),
            observer=job.log.within(self._name, batches=job.options.method != "evolution"),
            teacher=teacher_of(job, recipe),
            objective=task.objective,
        )


def _refuse_impossible(limits: Mapping[CostName, float]) -> None:
    for name, limit in limits.items():
        if limit <= 0:
            raise TargetError(
                f"no byte is left for {name}: what the files hold beside the weights is already "
                f"{-limit:.0f} bytes above the target",
                None,
            )
