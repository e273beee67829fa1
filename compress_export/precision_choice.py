"""`--precision auto`: every precision that the board can have is made and measured, one is shipped.

With `--precision joint` (joint.py) the candidates are files of several networks. Accuracy is that
on the validation images; the test images are read once, when all is decided.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress_export.sizes import mib
from compress_export.targets import DEFAULT_MAX_DROP

if TYPE_CHECKING:
    from boards import Board
    from boards.parts import FilePrecision
    from compress_export.exporting import Exports
    from compress_export.job import Job
    from exporters import Exported
    from runtime_bench import Measurement

_AS_FAST = 1.05
"""Latencies this near to the best are equal: the next run may turn them round."""

_DROP = "accuracy_drop_points"


@dataclass(frozen=True)
class Candidate:
    """One precision of the network in one format; `precision_choice` in report.json.

    Attributes:
        latency_p50_ms: on this machine; None where it has no runtime for the file.
        latency_counts: whether the board would have that latency, in kind.
        validation_score: mean of the metric, top-1 by default, a fraction; None like the latency.
        missed: budgets that it misses, judged on the validation images.
        shipped: whether it is the one in the bundle.
        pruned_for: precision that its network was pruned for, "" but for `--precision joint`.
    """

    path: str
    format: str
    precision: str
    size_bytes: int
    latency_p50_ms: float | None
    latency_counts: bool
    validation_score: float | None
    missed: tuple[str, ...]
    shipped: bool = False
    pruned_for: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"missed": list(self.missed)}

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> Candidate:
        return cls(**{**entry, "missed": tuple(entry["missed"])})

    @property
    def line(self) -> str:
        """For people."""
        score, ms = self.validation_score, self.latency_p50_ms
        parts = [
            f"{mib(self.size_bytes)} MiB",
            "latency unknown" if ms is None else f"p50 {ms:.3g} ms",
            "accuracy unknown" if score is None else f"validation {100 * score:.2f} %",
        ]
        if self.pruned_for:
            parts.insert(0, f"pruned for {self.pruned_for}")
        if self.missed:
            parts.append(f"misses {', '.join(self.missed)}")
        return f"{self.path}: {', '.join(parts)}{' <- shipped' if self.shipped else ''}"


def choose(candidates: Sequence[Candidate], board_precision: str) -> Candidate:
    """Return the best of one format: fewest budgets missed, then fastest, then smallest.

    Latencies decide where the board would have them; elsewhere the precision that the board is made
    for is taken if no other misses fewer budgets.

    Args:
        candidates: at least one.
        board_precision: the descriptor's smallest.
    """
    fewest = min(len(candidate.missed) for candidate in candidates)
    left = [candidate for candidate in candidates if len(candidate.missed) == fewest]
    timed = [c.latency_p50_ms for c in left if c.latency_p50_ms is not None and c.latency_counts]
    if timed:
        slowest = _AS_FAST * min(timed)
        left = [c for c in left if c.latency_p50_ms is not None and c.latency_p50_ms <= slowest]
    else:
        left = [c for c in left if c.precision == board_precision] or left
    return min(left, key=lambda c: (c.size_bytes, -(c.validation_score or 0.0)))


def possible(board: Board, format: str) -> list[FilePrecision]:
    """Return the precisions that files of a format can have on a board, its own first."""
    from boards.parts import FILE_PRECISIONS
    from exporters.support import may_ship, why_not

    own = board.target_precision
    others = [
        name
        for name in FILE_PRECISIONS
        if name != own and why_not(board, format, name) is None and may_ship(board, name)
    ]
    return [own, *others]


def write_candidates(job: Job, folder: Path) -> None:
    """Write a job's network in every precision to choose from that isn't there yet.

    `job.reference` grows. A precision that the tools can't make of this network is left out with a
    warning, but for the job's own.

    Raises:
        ExportError, CheckError: the job's own precision can't be made.
    """
    from exporters import ExportError

    for format in job.exports.formats:
        exports = replace(job.exports, formats=(format,))
        there = {f.precision for f in job.reference if (f.stage, f.format) == (job.stage, format)}
        missing = [
            precision
            for precision in possible(job.board, format)
            if precision not in there and (not job.candidates or precision in job.candidates)
        ]
        try:  # one conversion makes all
            job.reference += exports.write(job.network, job.stage, folder, missing)
        except ExportError:
            for precision in missing:
                _write_alone(job, exports, precision, folder)


def _write_alone(job: Job, exports: Exports, precision: FilePrecision, folder: Path) -> None:
    from exporters import ExportError

    try:
        job.reference += exports.write(job.network, job.stage, folder, [precision])
    except ExportError as error:
        if precision == job.exports.precision:
            raise
        (format,) = exports.formats
        job.warnings.append(f"no {precision} {format} file to choose from: {error}")


def choose_files(job: Job, folder: Path) -> list[Exported]:
    """Measure what `write_candidates` wrote and return the files to ship, one for each format.

    `job.precision_choice` holds all that was measured. Of several ways (`job.ways`) the best is
    taken, and the files of the others are removed.

    Args:
        folder: with a manifest of all files in `job.reference`.
    """
    from compress_export.joint import best_way, take_way

    job.precision_choice = _measured_candidates(job, folder)
    if job.ways:
        take_way(job, best_way(job, job.precision_choice), folder)
    best = _best_files(job, job.precision_choice)
    job.precision_choice = [replace(c, shipped=c in best) for c in job.precision_choice]
    for candidate in job.precision_choice:
        job.log.say(f"precision: {candidate.line}")
    return [file for file in job.reference if file.path in {c.path for c in best}]


def _best_files(job: Job, found: Sequence[Candidate]) -> list[Candidate]:
    """The best of each format of the network that goes to the board."""
    of_network = [c for c in found if not c.pruned_for or c.pruned_for == job.exports.precision]
    return [
        choose([c for c in of_network if c.format == format], job.exports.precision)
        for format in job.exports.formats
    ]


def _measured_candidates(job: Job, folder: Path) -> list[Candidate]:
    from compress_export.benching import LATENCY_RUNS
    from compress_export.file_scores import with_scores
    from runtime_bench import measure_folders, read_manifest, verdict

    measured = measure_folders(
        [folder],
        threads=job.options.threads or 1,
        runs=job.options.latency_runs or LATENCY_RUNS,
        progress=job.log.say,
    )
    images = job.task.images("baseline")
    owners = {
        item.name: way for item in measured for way in job.ways or (job,) if _is_of(item, way)
    }
    candidates = [item for item in measured if item.name in owners]
    wanted = with_scores(candidates, job.task, images.validation, job.log.say)
    manifest = read_manifest(folder)
    checks = verdict(wanted, manifest, baseline_top1=job.baseline_score)
    failed = [check for check in checks if check.status == "fail"]
    return [
        _candidate(item, {check.budget for check in failed if check.file == item.name}, way)
        for item, way in ((item, owners[item.name]) for item in wanted)
    ]


def _is_of(item: Measurement, way: Job) -> bool:
    """Whether a file is one that may go to the board, of a whole job or of one way."""
    wanted = item.precision in (way.candidates or possible(way.board, item.format))
    return item.stage == way.stage and wanted


def _candidate(item: Measurement, missed: set[str], job: Job) -> Candidate:
    from runtime_bench.verdict import drop_points

    if _DROP not in job.board.budgets.limits() and item.score is not None:
        drop = drop_points(job.baseline_score, item.score)
        missed = missed | ({_DROP} if drop > DEFAULT_MAX_DROP else set())
    return Candidate(
        path=item.path,
        format=item.format,
        precision=item.precision,
        size_bytes=item.size_bytes,
        latency_p50_ms=None if item.latency_ms is None else item.latency_ms["p50"],
        latency_counts=item.latency_counts,
        validation_score=item.score,
        missed=tuple(sorted(missed)),
        pruned_for=job.branch,
    )
