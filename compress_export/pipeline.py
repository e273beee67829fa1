"""The main job: a trained network and a board in, files that fit the board and a verdict out."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from boards import Board, Budgets, load_board
from compress_export.errors import UsageError
from compress_export.exit_codes import verdict_code
from compress_export.exporting import Exports, chosen_formats
from compress_export.options import JobOptions
from compress_export.outputs import OutputFolder, default_out
from compress_export.progress import RunLog
from compress_export.report import NetworkFigures, build_report, write_report
from compress_export.schedule import Epochs, baseline_recipe, choose_epochs
from compress_export.table import print_report
from compress_export.targets import (
    DEFAULT_MAX_DROP,
    EstimatedFile,
    SizedFile,
    Target,
    choose_target,
    resolved_budgets,
)
from compress_export.task import Task, load_task

if TYPE_CHECKING:
    from torch import nn

    from compress_export.pruning import Pruned
    from exporters import Exported
    from runtime_bench import Check

BYTES_PER_VALUE = {"int8": 1, "float16": 2, "float32": 4}


@dataclass
class Job:
    """One run and what it has found so far.

    Attributes:
        folder: claim on DIR and DIR.run.
        board: the descriptor, the user's limits in place of its own.
        exports: makes the model files.
        epochs: of every stage.
        baseline: the network that pruning starts from, and its validation top-1.
        pruned: the slim network, None where nothing was pruned.
        reference, bundle: files for comparison, files for the board.
    """

    options: JobOptions
    board: Board
    task: Task
    folder: OutputFolder
    log: RunLog
    exports: Exports
    epochs: Epochs
    baseline_top1: float = 0.0
    target: Target | None = None
    pruned: Pruned | None = None
    reference: list[Exported] = field(default_factory=list)
    bundle: list[Exported] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def baseline(self) -> nn.Module:
        """The network that pruning starts from."""
        return self.task.model

    @property
    def deployed(self) -> nn.Module:
        """The network whose files go to the board."""
        return self.baseline if self.pruned is None else self.pruned.model

    @property
    def stage(self) -> str:
        """Name of the deployed network in files and report."""
        return "baseline" if self.pruned is None else "slim"


def run_job(options: JobOptions, console: Console) -> int:
    """Run the job and return its exit code: 0, 1 or 4. DIR appears whole at the end.

    Raises:
        UsageError, InputError, BoardError: the user's mistakes, before any work.
        ExportError, BenchError, SlimError: a tool failed.
    """
    with ExitStack() as stack:
        job = _open(options, console, stack)
        if options.stages != ("bench",):
            _make_files(job)
        report = _measure(job)
        write_report(report, job.folder.staged)
        final = job.folder.publish()
        print_report(report, console)
        job.log.say(f"written to {final}")
        statuses = [check.status for check in job.checks]
        return int(verdict_code(statuses, require_measured=options.require_measured))


def _make_files(job: Job) -> None:
    """Everything before the measurement: the networks and their files, in DIR.run/staged."""
    _train_baseline(job)
    if "quantize" in job.options.stages:
        _export_reference(job)
    if "prune" in job.options.stages:
        _prune(job)
    _save_networks(job)
    if "quantize" in job.options.stages:
        _export_bundle(job)


def _open(options: JobOptions, console: Console, stack: ExitStack) -> Job:
    """Check everything that the user gave, then claim the output folder."""
    import torch

    from compress_export.rebench import reopen

    board = _with_limits(load_board(options.board), options)
    formats = chosen_formats(options, board)
    _check_stages(options)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    out = options.out or default_out(board.id)
    if options.stages == ("bench",):
        return reopen(options, board, out, console, stack)
    folder = stack.enter_context(OutputFolder(out, force=options.force, resume=options.resume))
    folder.claim_job(options.identity())
    log = RunLog(folder.run, console)
    with log.timed("load"):
        task = load_task(options, log.say)
        _check_traceable(task)
    stack.enter_context(log)
    epochs = choose_epochs(options, task.images("search").steps_per_epoch, task.trained)
    exports = Exports(task, board, formats, board.target_precision, log.say)
    job = Job(options, board, task, folder, log, exports, epochs)
    if task.data.skipped:
        names = ", ".join(task.data.skipped[:3])
        job.warnings.append(f"{len(task.data.skipped)} broken images were left out: {names}")
    return job


def _with_limits(board: Board, options: JobOptions) -> Board:
    budgets = Budgets(**resolved_budgets(options, board.budgets.limits()))
    return board.model_copy(update={"budgets": budgets})


def _check_stages(options: JobOptions) -> None:
    if options.stages == ("prune", "bench"):
        raise UsageError(
            "--stages prune,bench: bench measures the files that quantize makes; add quantize"
        )


def _check_traceable(task: Task) -> None:
    """A network that can't be traced is the user's to change, and known before any training."""
    from compressor.errors import InputError
    from compressor.graph import channel_graph
    from compressor.graph.build import TraceError

    try:
        graph = channel_graph(task.model, task.example())
    except TraceError as error:
        raise InputError(f"--model {task.architecture}: {error}") from error
    if graph.class_count == 0:
        raise InputError(f"--model {task.architecture}: none of its channels can be pruned")


def _train_baseline(job: Job) -> None:
    """Train where no weights were given, or adapt those given; keep the best on validation."""
    from compressor.checkpoint import Checkpoint
    from compressor.training import evaluate, fit

    task, log = job.task, job.log
    images = task.images("baseline")
    with log.timed("baseline"):
        if job.epochs.baseline == 0:
            job.baseline_top1 = evaluate(task.model, images.validation(), task.compute)
        else:
            recipe = baseline_recipe(job.options, job.epochs, task.batch_size, task.trained)
            checkpoint = Checkpoint(job.folder.run / "baseline.pt")
            job.baseline_top1 = fit(
                task.model,
                images,
                recipe,
                task.compute,
                stage="baseline",
                checkpoint=checkpoint,
                observer=log,
            )
    task.model.cpu()
    log.say(f"baseline: validation top-1 {job.baseline_top1:.4f}")


def _export_reference(job: Job) -> None:
    """Export the unpruned network: budgets and the report compare with it."""
    with job.log.timed("export"):
        precisions = _unique(["float32", job.exports.precision])
        folder = job.folder.staged / "reference"
        job.reference += job.exports.write(job.baseline, "baseline", folder, precisions)


def _prune(job: Job) -> None:
    from compress_export.pruning import prune
    from compressor.cost import NetworkCosts
    from compressor.decore.projection import TargetError
    from compressor.graph import channel_graph

    graph = channel_graph(job.baseline, job.task.example())
    width = BYTES_PER_VALUE[job.exports.precision]
    costs = NetworkCosts(graph, width, width)
    budgets = job.board.budgets.limits()
    unpruned: list[SizedFile] = [f for f in job.reference if f.precision == job.exports.precision]
    if not unpruned:
        formats = job.exports.formats
        unpruned += [EstimatedFile.unpruned(f"unpruned {f}", costs, graph) for f in formats]
    job.target = choose_target(job.options, budgets, costs, graph, unpruned)
    job.log.say(f"target: {job.target.why}")
    try:
        job.pruned = prune(
            job.task,
            job.baseline,
            job.baseline_top1,
            job.target,
            job.options,
            job.epochs,
            channel_step=job.board.channel_steps[job.exports.precision],
            bytes_per_value=width,
            max_drop=budgets.get("accuracy_drop_points", DEFAULT_MAX_DROP),
            work=job.folder.run,
            log=job.log,
        )
        if job.pruned is None and job.target.smallest:
            job.warnings.append(
                "nothing was pruned: no smaller net stayed within the accuracy drop"
            )
    except TargetError as error:
        job.log.say(f"target missed: {error}")
        job.checks.append(_target_missed(job.target, error.worst_ratio, str(error)))


def _target_missed(target: Target, worst_ratio: float | None, why: str) -> Check:
    from runtime_bench import Check

    note = f"{target.why}: {why}"
    return Check("", "target", worst_ratio, 1.0, "times the target", "fail", note)


def _save_networks(job: Job) -> None:
    """Save the torch networks, so that a later run or another tool can go on from them."""
    from compressor.saved import save_model

    classes = len(job.task.data.classes)
    folder = job.folder.staged / "torch"
    save_model(job.baseline, job.task.architecture, classes, folder / "baseline")
    if job.pruned is not None:
        save_model(job.pruned.model, job.task.architecture, classes, folder / "slim")


def _export_bundle(job: Job) -> None:
    """Export the network that goes to the board; its float files stay beside as reference."""
    reference, bundle = job.folder.staged / "reference", job.folder.staged / "bundle"
    precision = job.exports.precision
    with job.log.timed("export"):
        if job.pruned is None:
            files = [file for file in job.reference if file.precision == precision]
            source = reference
        else:
            made = job.exports.write(
                job.pruned.model, "slim", bundle, _unique(["float32", precision])
            )
            files = [file for file in made if file.precision == precision]
            others = [file for file in made if file.precision != precision]
            _move(others, bundle, reference)
            job.reference += others
            source = bundle
        bundle.mkdir(exist_ok=True)
        if source is reference:
            _move(files, reference, bundle)
            job.reference = [file for file in job.reference if file not in files]
        job.bundle = files
        job.exports.finish_bundle(bundle, files)
        job.exports.finish_reference(reference, job.reference)
    job.warnings += [
        f"{file.name}: {len(file.float_layers)} layers stayed float: {', '.join(file.float_layers)}"
        for file in files
        if file.float_layers
    ]


def _move(files: Sequence[Exported], source: Path, destination: Path) -> None:
    for file in files:
        for name in (file.path, *file.side_files):
            (source / name).rename(destination / name)


def _measure(job: Job) -> dict[str, object]:
    """Read the test images once, measure all files on them, and hold them to the budgets."""
    from compress_export.benching import Measured, bench, describe
    from runtime_bench import read_manifest, slower_int8, verdict

    bundle = job.folder.staged / "bundle"
    measured = Measured((), {})
    if "bench" in job.options.stages:
        measured = bench(job)
    elif bundle.is_dir():
        measured = describe(job)
    top1 = measured.top1.get
    networks = {"baseline": _figures(job, job.baseline, job.baseline_top1, top1("baseline"))}
    if job.pruned is not None:
        slim = job.pruned
        networks["slim"] = _figures(job, slim.model, slim.validation_top1, top1("slim"))
    if bundle.is_dir():
        manifest = read_manifest(bundle)
        job.checks += verdict(measured.files, manifest, baseline_top1=top1("baseline"))
        job.warnings += slower_int8(measured.files)
    return build_report(
        job.options,
        job.board.id,
        networks,
        measured.files,
        job.checks,
        job.warnings,
        job.log.timings_seconds,
        "" if job.target is None else job.target.why,
    )


def _figures(
    job: Job, model: nn.Module, validation_top1: float, test_top1: float | None
) -> NetworkFigures:
    from compressor.cost import NetworkCosts, as_tensor
    from compressor.graph import channel_graph

    graph = channel_graph(copy.deepcopy(model), job.task.example())
    return NetworkFigures(
        params=sum(parameter.numel() for parameter in model.parameters()),
        macs=int(NetworkCosts(graph).macs(as_tensor(graph.all_kept()))),
        top1=test_top1,
        validation_top1=validation_top1,
    )


def _unique(names: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(names))


def plan_job(options: JobOptions, console: Console) -> int:
    """Print what `run_job` would do; write nothing. Raises what `run_job` raises for mistakes."""
    import torch

    from compress_export.plan import print_plan

    board = _with_limits(load_board(options.board), options)
    formats = chosen_formats(options, board)
    _check_stages(options)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    task = load_task(options, lambda line: None)
    _check_traceable(task)
    epochs = choose_epochs(options, task.images("search").steps_per_epoch, task.trained)
    width = BYTES_PER_VALUE[board.target_precision]
    print_plan(options, board, task, epochs, formats, width, console)
    return 0
