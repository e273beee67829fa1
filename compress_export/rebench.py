"""--stages bench alone: measure a finished folder again, on this machine, with this code."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from boards import Board
from compress_export.codebook import CodebookFigures
from compress_export.contents import copy_contents
from compress_export.errors import UsageError
from compress_export.exporting import Exports
from compress_export.first_aid_figures import FirstAid
from compress_export.options import JobOptions
from compress_export.outputs import OutputFolder
from compress_export.precision_choice import Candidate
from compress_export.progress import RunLog
from compress_export.quantization_training import QuantizationFigures
from compress_export.reached import Reached
from compress_export.schedule import Epochs
from compress_export.targets import Target
from compress_export.task import load_task
from compress_export.user_paths import refuse_unreachable

if TYPE_CHECKING:
    from compress_export.job import Job

_OWN = (
    "stages", "threads", "device", "latency_runs", "bundle_samples", "require_measured", "sign_key",
)  # fmt: skip
"""Options that say how to measure."""
_SLOWER = re.compile(r" is slower than \S+: p50 ")
"""A warning that is measured anew."""
_PLACE = frozenset({"board", "out", "force", "resume", "dry_run", "config"})


def reopen(options: JobOptions, board: Board, out: Path, console: Console, stack: ExitStack) -> Job:
    """Return the job that made a finished folder, as it stood before its files were measured.

    Images, network, seed and budgets are those of the folder's own report; `_OWN` options are the
    new command's.

    Raises:
        UsageError: the folder holds no result with model files, it is another board's, or the new
            command has an option that would make other files.
    """
    from compress_export.job import Job
    from compress_export.pruning import Pruned
    from compressor.saved import load_model
    from runtime_bench import Check

    report = checked_report(out, board)
    saved = _saved_options(report, out)
    _refuse_changes(options, saved)
    folder = stack.enter_context(OutputFolder(out, force=options.force, update=True))
    copy_contents(out, folder.staged)
    log = RunLog(None, console)  # nothing is trained: the curves in DIR.run stay as they are
    earlier = {k: v for k, v in report["timings_seconds"].items() if k not in ("load", "bench")}
    log.timings_seconds.update(earlier)
    networks = folder.staged / "torch"
    baseline = {
        "device": options.device,
        "weights": networks / "baseline",
        "new_head": False,
        "teacher": None,
        "distill": "none",
    }
    stack.enter_context(log)
    task = load_task(saved.model_copy(update=baseline), log.say, log.decoded)
    done = saved.model_copy(update={name: getattr(options, name) for name in _OWN})
    precision = (saved.named_precisions or (board.target_precision,))[0]
    exports = Exports(task, board, board.formats, precision, log.say)
    job = Job(done, board, task, folder, log, exports, Epochs(0, 0, 0))
    key = f"validation_{task.objective.score_key}"
    job.inputs = report.get("inputs", {})
    made_by = {key: report[key] for key in ("command", "options", "environment")}
    job.made_by = report.get("made_by") or made_by
    job.baseline_score = report["stages"]["baseline"][key]
    if report.get("codebook"):
        job.codebook = CodebookFigures.from_json(report["codebook"])
    job.first_aid = FirstAid.of_report(report)
    job.precision_choice = [Candidate.from_json(c) for c in report.get("precision_choice", ())]
    if report.get("quantization_training"):
        job.quantization = QuantizationFigures.from_json(report["quantization_training"])
    job.warnings += [line for line in report["warnings"] if not _SLOWER.search(line)]
    job.device_measurements = report.get("device_measurements", [])
    job.target = Target({}, report["target"]) if report["target"] else None
    job.checks += [Check(**check) for check in report["checks"] if check["budget"] == "target"]
    if (networks / "slim").is_dir():
        figures = report["stages"]["slim"]
        limits = tuple(Reached.from_json(entry) for entry in report.get("limits", ()))
        slim = load_model(networks / "slim")
        job.pruned = Pruned(slim, figures[key], 0.0, limits)
    return job


def read_report(out: Path) -> dict[str, Any]:
    """What is in the report.json of a finished folder."""
    report: dict[str, Any] = json.loads((out / "report.json").read_text(encoding="utf-8"))
    return report


def _saved_options(report: Mapping[str, Any], out: Path) -> JobOptions:
    from pydantic import ValidationError

    try:
        return JobOptions(**report["options"])
    except ValidationError as error:
        reason = " ".join(str(error.errors()[0]["msg"]).split())
        raise UsageError(
            f"--stages bench: {out} was made with options that this version doesn't take "
            f"({reason}); make it anew"
        ) from None


def _refuse_changes(options: JobOptions, saved: JobOptions) -> None:
    given = options.model_fields_set - _PLACE - set(_OWN)
    for name in sorted(name for name in given if getattr(options, name) != getattr(saved, name)):
        was = saved.model_dump(mode="json")[name]
        raise UsageError(
            f"--{name.replace('_', '-')}: --stages bench measures files as they are, which were "
            f"made with {was}; leave the option out, run the stages that make files, or judge by "
            "other limits with compress-export gate"
        )


def checked_report(out: Path, board: Board) -> dict[str, Any]:
    """Return what is in the report.json of a folder whose files can be measured.

    Raises:
        UsageError: it has no result with model files, or another board's.
    """
    path = out / "report.json"
    refuse_unreachable("--out", path)
    if not (out / "bundle").is_dir() or not path.is_file():
        raise UsageError(
            f"--stages bench: {out} holds no bundle/ and report.json of an earlier run to measure; "
            "run prune,quantize first or name the right folder with --out"
        )
    report = read_report(out)
    if report["board"] != board.id:
        raise UsageError(f"--board {board.id}: {out} was made for board {report['board']}")
    return report
