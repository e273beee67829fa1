"""The main job: a trained network and a board in, files that fit the board and a verdict out.

`compress` is the job; the command line and Python programs run this one, whole or stage by stage
(docs/api.md). Each stage takes the job, adds to what is found so far and leaves its files in
DIR.run/staged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from compress_export.exit_codes import ExitCode, verdict_code
from compress_export.export_stage import export, export_unpruned
from compress_export.exporting import chosen_precisions
from compress_export.job import Job, checked_board, checked_task, open_job
from compress_export.options import JobOptions
from compress_export.provenance import environment
from compress_export.report import NetworkFigures, build_report, write_report
from compress_export.schedule import baseline_recipe, choose_epochs
from compress_export.sealing import seal_bundle
from compress_export.shown import print_line
from compress_export.table import print_report
from compress_export.targets import (
    EstimatedFile,
    SizedFile,
    Target,
    choose_target,
)

if TYPE_CHECKING:
    from torch import nn

    from boards.parts import FilePrecision
    from compress_export.pruning import Pruned, Start
    from runtime_bench import Check, Measurement


@dataclass(frozen=True)
class Result:
    """How a job ended.

    Attributes:
        folder: DIR, with the bundle, the networks and the report.
        report: what is in report.json, see docs/report.md.
        exit_code: 0 passed, 1 a budget missed, 4 required but not measured.
    """

    folder: Path
    report: dict[str, Any]
    exit_code: ExitCode

    @property
    def passed(self) -> bool:
        """Whether no budget was missed and all that had to be measured was."""
        return self.exit_code is ExitCode.PASSED


def compress(options: JobOptions, console: Console | None = None) -> Result:
    """Run the job. DIR appears whole at the end, or not at all.

    Args:
        console: where progress and the table are shown; standard output by default.

    Raises:
        UsageError, InputError, BoardError: the user's mistakes, before any work.
        ExportError, BenchError, SlimError: a tool failed.
    """
    with open_job(options, console) as job:
        return run_stages(job)


def run_stages(job: Job) -> Result:
    """Run all stages that the job's options name, and publish DIR."""
    train(job)
    if "quantize" in job.options.stages:
        export(job)
    return publish(job, measure(job))


def train(job: Job) -> None:
    """Do what the job's options name up to the network that goes to the board."""
    options = job.options
    if options.stages != ("bench",):
        train_baseline(job)
    if "prune" in options.stages:
        prune(job)
    if options.qat_epochs and options.stages != ("bench",):
        train_quantized(job)
    if options.codebook is not None and options.stages != ("bench",):
        share_weights(job)


def train_baseline(job: Job) -> None:
    """Train where no weights were given, or adapt those given; keep the best on validation."""
    from compressor.checkpoint import Checkpoint
    from compressor.training import evaluate, fit

    task, log = job.task, job.log
    images = task.images("baseline")
    if job.sharing is not None:
        job.sharing.take_baseline(job)
    with log.timed("baseline"):
        if job.epochs.baseline == 0:
            job.baseline_score = evaluate(
                task.model, images.validation(), task.compute, task.objective
            )
        else:
            recipe = baseline_recipe(job.options, job.epochs, task.batch_size, task.trained)
            checkpoint = Checkpoint(job.folder.run / "baseline.pt")
            job.baseline_score = fit(
                task.model,
                images,
                recipe,
                task.compute,
                stage="baseline",
                checkpoint=checkpoint,
                observer=log,
                objective=task.objective,
            )
    task.model.cpu()
    log.say(f"baseline: validation {task.objective.metric_name} {job.baseline_score:.4f}")
    job.save_network(job.baseline, "baseline")


def prune(job: Job) -> None:
    """Choose channels, slim the baseline and fine-tune it; `job.pruned` is the result.

    A target that can't be met, or a net that can't get smaller, leaves `job.pruned` None and is
    among the job's checks or warnings. With `--precision joint` this is done for several
    precisions, `job.ways`; which of them `job.pruned` is to be, `export` finds out.
    """
    if job.options.chooses_jointly:
        _prune_ways(job)
    else:
        _prune(job)
        if job.pruned is not None:
            job.save_network(job.pruned.model, "slim")


def _prune_ways(job: Job) -> None:
    """Prune for the board's own precision, then for each other one that budgets treat otherwise."""
    from compress_export.joint import precision_groups, remarks, way_for

    def add(precisions: Sequence[FilePrecision]) -> Job:
        job.log.say(f"joint: pruning for {precisions[0]}")
        job.ways.append(way_for(job, precisions))
        _prune(job.ways[-1])
        return job.ways[-1]

    own = add([job.exports.precision])
    assert own.target is not None
    binding = own.target.limits.keys() - {"macs"}
    others: list[tuple[FilePrecision, ...]] = []
    if binding:
        for line in remarks(job.board, job.exports.formats, binding):
            job.log.say(f"joint: {line}")
            job.warnings.append(f"joint: {line}")
        own.candidates, *others = precision_groups(job.board, job.exports.formats, binding)
    else:
        job.log.say("joint: no budget of bytes or latency binds: all precisions have this network")
    if not others:
        own.candidates = ()
    for precisions in others:
        add(precisions)


def _prune(job: Job) -> None:
    from compress_export.measured_limits import costs_with_latency
    from compress_export.pruning import Start, prune_to
    from compressor import ranks
    from compressor.decore.projection import TargetError

    if "quantize" in job.options.stages and ranks.is_first():
        export_unpruned(job)
    start = Start.of(job.baseline, job)
    target, p90_ms = ranks.from_first(lambda: _measured_target(job, start))
    job.target = Target(**target)
    job.log.say(f"target: {job.target.why}")
    if p90_ms is not None and "latency_ms" in job.target.limits:
        start = replace(start, costs=costs_with_latency(job, start.graph, p90_ms))
    if job.sharing is not None:
        job.sharing.take_search(job, job.target)
    try:
        job.pruned = prune_to(job, job.target, start)
    except TargetError as error:
        job.log.say(f"target missed: {error}")
        job.checks.append(_target_missed(job.target, error.worst_ratio, str(error)))
    if job.pruned is not None:
        _note_missed_limits(job, job.target, job.pruned)
    elif job.target.smallest:
        job.warnings.append("nothing was pruned: no smaller net stayed within the accuracy drop")
    elif not job.target.limits:
        job.warnings.append(f"nothing was pruned: {job.target.why}")


def train_quantized(job: Job) -> None:
    """Train the network that goes to the board as its files will answer (--qat-epochs).

    Where it was pruned for several precisions, those whose files round nothing stay as they are.
    """
    from compress_export.quantization_training import train_for_files
    from exporters.support import FLOATS

    for way in job.ways or (job,):
        if way.exports.precision not in FLOATS:
            train_for_files(way)
    if job.pruned is not None:
        job.save_network(job.pruned.model, "slim")


def share_weights(job: Job) -> None:
    """Let the layers of the network that goes to the board share few weights (--codebook)."""
    from compress_export.codebook import share

    if job.options.codebook is None:
        raise ValueError("the job has no --codebook, the number of weights that a layer may have")
    share(job, job.options.codebook)
    assert job.pruned is not None
    job.save_network(job.pruned.model, "slim")


def measure(job: Job) -> dict[str, Any]:
    """Read the test images once, measure all files on them, and hold them to the budgets.

    Returns:
        The report, as documented in docs/report.md.
    """
    from compress_export.benching import Measured, bench, describe
    from compress_export.evidence import write_evidence
    from compress_export.shipping import ship_what_gains
    from runtime_bench import read_manifest, slower_int8, verdict

    bundle = job.folder.staged / "bundle"
    measured = Measured((), {})
    if "bench" in job.options.stages:
        measured = bench(job)
        if bundle.is_dir():
            measured = replace(measured, files=ship_what_gains(job, measured.files))
            _complete_bundle(job, bundle, measured.files)
    elif bundle.is_dir():
        measured = describe(job)
    score = measured.scores.get
    networks = {
        "baseline": _figures(job, "baseline", job.baseline, job.baseline_score, score("baseline"))
    }
    if job.pruned is not None:
        model, validation_score = job.pruned.model, job.pruned.validation_score
        networks["slim"] = _figures(job, "slim", model, validation_score, score("slim"))
    if bundle.is_dir():
        manifest = read_manifest(bundle)
        job.checks += verdict(measured.files, manifest, baseline_top1=score("baseline"))
        job.warnings += slower_int8(measured.files)
    write_evidence(job, measured)
    return build_report(
        job.options,
        job.board.id,
        networks,
        measured.files,
        job.checks,
        [*job.log.setbacks, *job.warnings],
        job.log.timings_seconds,
        "" if job.target is None else job.target.why,
        () if job.pruned is None else job.pruned.limits,
        job.codebook,
        job.quantization,
        job.precision_choice,
        job.first_aid,
        inputs=job.inputs,
        environment=environment(job.task.compute),
        made_by=job.made_by,
    )


def _complete_bundle(job: Job, bundle: Path, measured: Sequence[Measurement]) -> None:
    """Put what was measured, and the images that were asked for, into the bundle."""
    from compress_export.benching import samples_file
    from compress_export.bundling import complete_bundle

    arenas = (item.arena for item in measured if Path(item.folder) == bundle)
    complete_bundle(
        bundle,
        job.board,
        arena=next((arena for arena in arenas if arena is not None), None),
        samples=samples_file(job) if job.task.objective.metric is None else None,
        count=job.options.bundle_samples,
        seed=job.options.seed,
    )


def publish(job: Job, report: dict[str, Any]) -> Result:
    """Write the report, seal the bundle, turn DIR.run/staged into DIR and show the table."""
    from compress_export.html_report import redraw

    report = {**report, "device_measurements": job.device_measurements}
    write_report(report, job.folder.staged)
    bundle = job.folder.staged / "bundle"
    seal_bundle(bundle, report, board=job.board, options=job.options, say=job.log.say)
    redraw(job.folder.staged, job.log.say)
    final = job.folder.publish()
    print_report(report, job.log.console)
    job.log.say(f"written to {final}")
    statuses = [check.status for check in job.checks]
    code = verdict_code(statuses, require_measured=job.options.require_measured)
    return Result(final, report, code)


def _measured_target(job: Job, start: Start) -> tuple[dict[str, Any], dict[str, float] | None]:
    """Return a target's attributes, and the unpruned files' p90 where a budget asks for it."""
    from compress_export.measured_limits import unpruned_p90_ms

    unpruned = _unpruned_files(job, start)
    p90_ms = unpruned_p90_ms(job)
    named_ms = None if p90_ms is None else {unpruned[f].name: ms for f, ms in p90_ms.items()}
    budgets, files = job.board.budgets.limits(), list(unpruned.values())
    target = choose_target(job.options, budgets, start.costs, start.graph, files, named_ms)
    if target.smallest and job.stops_at_budgets:
        target = Target({}, "no budget binds")
    return asdict(target), p90_ms


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


def _figures(
    job: Job, name: str, model: nn.Module, validation_score: float, test_score: float | None
) -> NetworkFigures:
    from compressor.cost import NetworkCosts, as_tensor
    from compressor.graph import channel_graph
    from compressor.saved import WEIGHTS_FILE
    from exporters.artifacts import sha256_of

    graph = channel_graph(model, job.task.example())
    return NetworkFigures(
        params=sum(parameter.numel() for parameter in model.parameters()),
        macs=int(NetworkCosts(graph).macs(as_tensor(graph.all_kept()))),
        sha256=sha256_of(job.folder.staged / "torch" / name / WEIGHTS_FILE),
        score=test_score,
        validation_score=validation_score,
    )


def plan_job(options: JobOptions, console: Console) -> int:
    """Print what `compress` would do; write nothing. Raises what it raises for mistakes."""
    from compress_export.outputs import default_out, refuse_occupied
    from compress_export.rebench import checked_report

    board, _ = checked_board(options)
    out, again = options.out or default_out(board.id), options.stages == ("bench",)
    refuse_occupied(out, force=options.force, resume=options.resume, update=again)
    if again:
        checked_report(out, board)
        print_line(console, f"stages:   bench, of the files in {out}")
        return 0
    return show_plan(options, console)


def show_plan(options: JobOptions, console: Console) -> int:
    """Print what a job that makes files would do, wherever its folder may be."""
    from compress_export.plan import print_plan
    from compress_export.progress import RunLog

    board, formats = checked_board(options)
    with RunLog(None, console) as log:
        task = checked_task(options, lambda line: None, log.decoded)
    epochs = choose_epochs(options, task.images("search").steps_per_epoch, task.trained)
    precision, *_ = chosen_precisions(options, board, formats)
    print_plan(options, board, task, epochs, formats, precision, console)
    return 0
