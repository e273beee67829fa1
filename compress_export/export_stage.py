"""The quantize stage: files of the slim network, those that go to the board, others beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from compress_export.first_aid import Aided
    from compress_export.job import Job
    from exporters import CodebookFile, Exported


def export(job: Job) -> None:
    """Complete the folder that goes to the board; float and unpruned files stay beside it."""
    reference, bundle = job.folder.staged / "reference", job.folder.staged / "bundle"
    for way in job.ways or (job,):
        _write_files(way, reference)
    if job.options.chooses_precision:
        files = _chosen_files(job, reference)
    else:
        wanted = (job.stage, job.exports.precision)
        files = [file for file in job.reference if (file.stage, file.precision) == wanted]
        # First aid writes the files of one format before those of another.
        files.sort(key=lambda file: job.exports.formats.index(file.format))
    _draw_first_aid(job)
    with job.log.timed("export"):
        if job.pruned is not None:
            _write_missing(job, reference, ["float32"])
        job.reference[:] = [file for file in job.reference if file not in files]
        bundle.mkdir()
        for name in (name for file in files for name in file.paths):
            (reference / name).rename(bundle / name)
        job.exports.finish_bundle(bundle, files, _codebook_file(job, bundle, files))
        job.exports.finish_reference(reference, job.reference)
    job.warnings += [
        f"{file.name}: {len(file.float_layers)} layers stayed float: {', '.join(file.float_layers)}"
        for file in files
        if file.float_layers
    ]
    for file in files:
        job.warnings += [f"{file.name}: {line}" for line in _remarks(file)]


def export_unpruned(job: Job) -> None:
    """Export the unpruned network once: budgets and the report compare with it."""
    with job.log.timed("export"):
        there = {file.precision for file in job.reference if file.stage == "baseline"}
        wanted = dict.fromkeys(("float32", job.exports.precision))
        folder = job.folder.staged / "reference"
        more = [name for name in wanted if name not in there]
        if more:
            job.reference += job.exports.write(job.baseline, "baseline", folder, more)


def _write_files(job: Job, reference: Path) -> None:
    """Write the network that goes to the board in every precision that may go there or is compared.

    Args:
        job: the whole job, or one way of a joint choice.
    """
    from compress_export.precision_choice import write_candidates

    export_unpruned(job)
    precision = job.exports.precision
    aided = _first_aid(job)
    with job.log.timed("export"):
        for format, own in aided.items():
            wanted = (job.stage, precision, format)
            job.reference[:] = [
                f for f in job.reference if (f.stage, f.precision, f.format) != wanted
            ]
            exports = replace(job.exports, formats=(format,))
            job.reference += exports.write(
                own.model, job.stage, reference, [precision], own.float_layers
            )
        if job.options.chooses_precision:
            write_candidates(job, reference)
        else:
            # The float file is the source of the others: one conversion makes all.
            beside = [] if job.pruned is None else ["float32"]
            _write_missing(job, reference, [precision, *job.exports.compared, *beside])


def _write_missing(job: Job, reference: Path, precisions: Sequence[str]) -> None:
    there = {(file.format, file.precision) for file in job.reference if file.stage == job.stage}
    formats_of: dict[tuple[str, ...], list[str]] = {}  # by what they lack: one export makes all
    for format in job.exports.formats:
        more = tuple(name for name in dict.fromkeys(precisions) if (format, name) not in there)
        formats_of.setdefault(more, []).append(format)
    for more, formats in formats_of.items():
        if more:
            exports = replace(job.exports, formats=tuple(formats))
            job.reference += exports.write(job.network, job.stage, reference, more)


def _first_aid(job: Job) -> dict[str, Aided]:
    """Find out what helps the quantized files (--first-aid)."""
    from compress_export.first_aid import can_aid, give_first_aid

    if not can_aid(job):
        return {}
    score = job.baseline_score if job.pruned is None else job.pruned.validation_score
    with job.log.timed("first aid"):
        return give_first_aid(job, job.network, score)


def _draw_first_aid(job: Job) -> None:
    """Draw what was measured of the network that goes to the board, if its layers were ranked."""
    from compress_export.first_aid_plot import FIRST_AID_PICTURE, draw_first_aid

    if ranked := [figures for figures in job.first_aid if figures.layers]:
        metric = job.task.objective.metric_name
        draw_first_aid(ranked, metric, job.folder.staged / FIRST_AID_PICTURE)


def _chosen_files(job: Job, reference: Path) -> list[Exported]:
    """Return the files that measure best of all that were made."""
    from compress_export.precision_choice import choose_files
    from compress_export.precision_plot import PICTURE, draw_choice

    with job.log.timed("export"):
        job.exports.finish_reference(reference, job.reference)
        files = choose_files(job, reference)
        metric = job.task.objective.metric_name
        draw_choice(job.precision_choice, metric, job.folder.staged / PICTURE)
    return files


def _remarks(file: Exported) -> tuple[str, ...]:
    """What the file's target runs, but slowly."""
    return file.profile.remarks if file.profile else ()


def _codebook_file(job: Job, bundle: Path, files: Sequence[Exported]) -> CodebookFile | None:
    """Write the file of a network with shared weights, and note what the files take."""
    from compress_export.codebook import with_sizes, write_file

    if job.codebook is None or job.pruned is None:
        return None
    file = write_file(job.pruned.model, "slim", bundle)
    job.codebook = with_sizes(job.codebook, file, bundle, files)
    return file
