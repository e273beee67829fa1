"""--dry-run: what would be done, which budgets bind, and about how long it takes."""

from __future__ import annotations

import copy
import time
from typing import TYPE_CHECKING

from rich.console import Console

from boards import Board
from compress_export.joint import precision_groups, remarks
from compress_export.latency_target import why_not_searchable
from compress_export.options import JobOptions
from compress_export.schedule import Epochs
from compress_export.shown import print_line
from compress_export.targets import BYTES_PER_VALUE, LATENCY, MIB, EstimatedFile, choose_target
from compress_export.task import Task

if TYPE_CHECKING:
    from compressor.cost import NetworkCosts
    from compressor.graph import ChannelGraph

_TIMED_STEPS = 12
_TEACHER_SHARE = 0.35  # a teacher adds a forward pass to a forward and a backward pass


def print_plan(
    options: JobOptions,
    board: Board,
    task: Task,
    epochs: Epochs,
    formats: tuple[str, ...],
    precision: str,
    console: Console,
) -> None:
    """Print the plan. Nothing is written; a few training steps on a copy are timed."""
    from compressor.cost import NetworkCosts, as_tensor
    from compressor.graph import channel_graph

    graph = channel_graph(task.model, task.example())
    costs = NetworkCosts(graph, *BYTES_PER_VALUE[precision])
    everything = as_tensor(graph.all_kept())
    params = sum(parameter.numel() for parameter in task.model.parameters())
    lines = [
        f"board:    {board.name} ({board.id}), {precision} in {', '.join(formats)}",
        f"network:  {task.architecture}, {params:,} parameters, "
        f"{float(costs.macs(everything)) / 1e6:.1f} M MACs, {graph.class_count} agents in "
        f"{len(graph.groups)} groups",
        *(f"fixed:    {name}: {why}" for name, why in graph.fixed.items()),
        f"images:   {len(task.data.train)} training, {len(task.data.validation)} validation, "
        f"{len(task.data.test)} test, {len(task.calibration)} for calibration",
        f"stages:   {', '.join(options.stages)}",
        f"epochs:   baseline {epochs.baseline}, search {epochs.search}, "
        f"fine-tuning {epochs.finetune}, codebook {epochs.codebook}, "
        f"quantization {epochs.quantization}, "
        f"{task.batch_size} images a step",
        *_budget_lines(board, formats, costs, graph),
    ]
    unpruned = [EstimatedFile.unpruned(f"unpruned {f}", costs, graph) for f in formats]
    target = choose_target(options, board.budgets.limits(), costs, graph, unpruned)
    prunes = "prune" in options.stages
    if prunes:
        lines.append(f"target:   {target.why}")
    seconds = _step_seconds(task) * task.images("search").steps_per_epoch
    work = epochs.baseline + epochs.taught * (1 + _TEACHER_SHARE)
    rungs = ", once for every rung of the ladder" if prunes and target.smallest else ""
    if prunes and options.chooses_jointly and target.limits.keys() - {"macs"}:
        lines += [f"joint:    {line}" for line in remarks(board, formats, target.limits)]
        groups = precision_groups(board, formats, target.limits)
        if len(groups) > 1:
            rungs = f", {len(groups)} times: for {', '.join(group[0] for group in groups)}"
    lines.append(f"training: about {work * seconds / 60:.1f} minutes on this machine{rungs}")
    for line in lines:
        print_line(console, line)


def _budget_lines(
    board: Board, formats: tuple[str, ...], costs: NetworkCosts, graph: ChannelGraph
) -> list[str]:
    estimate = EstimatedFile.unpruned("", costs, graph)
    known = {
        "file_size_mib": estimate.size_bytes / MIB,
        "weights_mib": estimate.size_bytes / MIB,
        "activation_memory_mib": estimate.activation_bytes / MIB,
    }
    lines = []
    unsearchable = why_not_searchable(board, formats)
    for name, limit in board.budgets.limits().items():
        if name in known:
            state = "binds" if known[name] > limit else "does not bind"
            lines.append(f"budget:   {name} {limit:g}, unpruned about {known[name]:.3g}: {state}")
        else:
            steers = name != LATENCY or unsearchable is None
            why = "" if steers else f", does not steer the search: {unsearchable}"
            lines.append(f"budget:   {name} {limit:g}, decided after measuring{why}")
    return lines


def _step_seconds(task: Task) -> float:
    """Time training steps on a copy of the network."""
    from compressor.training import Recipe, sgd

    recipe = Recipe(epochs=1, learning_rate=0.0)
    model = task.compute.place(copy.deepcopy(task.model)).train()
    optimizer = sgd(model, recipe)
    batches = task.images("baseline").train(0)
    spent = []
    for _, (x, labels) in zip(range(_TIMED_STEPS), batches, strict=False):
        start = time.perf_counter()
        with task.compute.arithmetic():
            outputs = model(task.compute.images(x))
        losses = task.objective.losses(outputs, labels.to(task.compute.device))
        losses.mean().backward()
        optimizer.step()
        spent.append(time.perf_counter() - start)
    return min(spent)
