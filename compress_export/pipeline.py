"""The main job: a trained network and a board in, files that fit the board and a verdict out."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

from rich.console import Console

from compress_export.exit_codes import verdict_code
from compress_export.job import Job, checked_board, checked_task, open_job
from compress_export.options import JobOptions
from compress_export.report import NetworkFigures, build_report, write_report
from compress_export.schedule import baseline_recipe, choose_epochs
from compress_export.table import print_report
from compress_export.targets import (
    BYTES_PER_VALUE,
    EstimatedFile,
    SizedFile,
    Target,
    choose_target,
)

if TYPE_CHECKING:
    from torch import nn

    from compress_export.pruning import Pruned, Start
    from runtime_bench import Check


def run_job(options: JobOptions, console: Console) -> int:
    """Run the job and return its exit code: 0, 1 or 4. DIR appears whole at the end.

    Raises:
        UsageError, InputError, BoardError: the user's mistakes, before any work.
        ExportError, BenchError, SlimError: a tool failed.
    """
    with ExitStack() as stack:
        job = open_job(options, console, stack)
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
    from compress_export.measured_limits import costs_with_latency, unpruned_p90_ms
    from compress_export.pruning import Start, prune
    from compressor.decore.projection import TargetError

    start = Start.of(job.baseline, job)
    unpruned = _unpruned_files(job, start)
    p90_ms = unpruned_p90_ms(job)
    named_ms = None if p90_ms is None else {unpruned[f].name: ms for f, ms in p90_ms.items()}
    budgets, files = job.board.budgets.limits(), list(unpruned.values())
    job.target = choose_target(job.options, budgets, start.costs, start.graph, files, named_ms)
    job.log.say(f"target: {job.target.why}")
    if p90_ms is not None and "latency_ms" in job.target.limits:
        start = replace(start, costs=costs_with_latency(job, start.graph, p90_ms))
    try:
        job.pruned = prune(job, job.target, start)
    except TargetError as error:
        job.log.say(f"target missed: {error}")
        job.checks.append(_target_missed(job.target, error.worst_ratio, str(error)))
    if job.pruned is not None:
        _note_missed_limits(job, job.target, job.pruned)
    elif job.target.smallest:
        job.warnings.append("nothing was pruned: no smaller net stayed within the accuracy drop")


def _unpruned_files(job: Job, start: Start) -> dict[str, SizedFile]:
    """Return format -> quantized file of the unpruned network, estimates where there is none."""
    files = [file for file in job.reference if file.precision == job.exports.precision]
    if files:
        return {file.format: file for file in files}
    return {
        name: EstimatedFile.unpruned(f"unpruned {name}", start.costs, start.graph)
        for name in job.exports.formats
    }


def _note_missed_limits(job: Job, target: Target, pruned: Pruned) -> None:
    """Say what even corrections could not meet; the bench, where there is one, decides."""
    for entry in pruned.limits:
        if entry.share > 1 and "bench" in job.options.stages:
            job.warnings.append(f"{entry.cost}: {entry.line}")
        elif entry.share > 1:
            job.checks.append(_target_missed(target, entry.share, entry.line))


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
    """Complete the folder that goes to the board; float and unpruned files stay beside it."""
    reference, bundle = job.folder.staged / "reference", job.folder.staged / "bundle"
    precision, stage = job.exports.precision, "baseline"
    with job.log.timed("export"):
        if job.pruned is not None:
            stage = "slim"
            precisions = _unique(["float32", precision])
            job.reference += job.exports.write(job.pruned.model, stage, reference, precisions)
        files = [f for f in job.reference if (f.stage, f.precision) == (stage, precision)]
        job.reference = [file for file in job.reference if file not in files]
        bundle.mkdir()
        for name in (name for file in files for name in (file.path, *file.side_files)):
            (reference / name).rename(bundle / name)
        job.exports.finish_bundle(bundle, files)
        job.exports.finish_reference(reference, job.reference)
    job.warnings += [
        f"{file.name}: {len(file.float_layers)} layers stayed float: {', '.join(file.float_layers)}"
        for file in files
        if file.float_layers
    ]


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
        () if job.pruned is None else job.pruned.limits,
    )


def _figures(
    job: Job, model: nn.Module, validation_top1: float, test_top1: float | None
) -> NetworkFigures:
    from compressor.cost import NetworkCosts, as_tensor
    from compressor.graph import channel_graph

    graph = channel_graph(model, job.task.example())
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
    from compress_export.plan import print_plan

    board, formats = checked_board(options)
    task = checked_task(options, lambda line: None)
    epochs = choose_epochs(options, task.images("search").steps_per_epoch, task.trained)
    width = BYTES_PER_VALUE[board.target_precision]
    print_plan(options, board, task, epochs, formats, width, console)
    return 0
