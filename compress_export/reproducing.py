"""Run a job again from its report, and say what came out otherwise."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress_export.contents import is_made
from compress_export.errors import UsageError
from compress_export.exit_codes import ExitCode
from compress_export.provenance import differences
from compress_export.shown import print_line
from compress_export.user_paths import refuse_unreachable

if TYPE_CHECKING:
    from rich.console import Console

    from compress_export.options import JobOptions

# Figures of time and process memory, and the texts that are made from them.
_TIMED_KEYS = frozenset({
    "command", "environment", "made_by", "device_measurements", "timings_seconds", "verdict",
    "eval_seconds", "latency_ms", "latency_p50_ms", "rss_before_load_bytes",
    "rss_after_load_bytes", "peak_rss_bytes", "peak_rss_no_arena_bytes",
})  # fmt: skip
_TIMED_BUDGETS = frozenset({"latency_p90_ms", "peak_rss_mib"})
_TIMED_WARNING = re.compile(r"slower than|resumed in another environment")
TIMED_FILES = frozenset({
    "report.json", "report.md", "report.html", "precision.png", "evidence/latency.json",
    "bundle/README.md", "bundle/SHA256SUMS", "bundle/model.sig",
})  # fmt: skip


def reproduce(given: Path, out: Path | None, console: Console, **flags: bool) -> int:
    """Run the job of a report again, and compare.

    Args:
        given: report.json, or the folder that holds it.
        out: for the new result; beside the old one by default, as DIR.reproduced.
        flags: `force` and `resume` of the new run.

    Returns:
        0 where all is equal, 1 where something differs.

    Raises:
        UsageError: no report of a job, or its inputs have changed since.
    """
    import torch

    from compress_export.job import open_job
    from compress_export.pipeline import run_stages
    from compress_export.run_action import note_job

    refuse_unreachable("report", given / "report.json")
    path = given / "report.json" if given.is_dir() else given
    report, made_by = _read(path)
    folder = path.resolve().parent
    out = out or folder.with_name(f"{folder.name}.reproduced")
    options = _options(made_by, path).model_copy(update={"out": out, **flags})
    note_job(options)
    torch.set_num_threads(made_by["environment"]["torch"]["threads"])  # what --threads overrides
    with open_job(options, console) as job:
        if changed := differences(report["inputs"], job.inputs):
            raise UsageError(f"{path}: it was made from other inputs, {'; '.join(changed)}")
        result = run_stages(job)
    after, after_by = _read(result.folder / "report.json")
    found = figure_differences(report, after)
    if (folder / "torch").is_dir():
        found += file_differences(folder, result.folder)
    reasons = differences(made_by["environment"], after_by["environment"])
    lines = [*(f"differs: {line}" for line in found), *(f"here: {line}" for line in reasons)]
    if not found:
        lines.append(f"reproduced: {path} and {result.folder} are equal, times aside")
    for line in lines:
        print_line(console, line)
    return ExitCode.BUDGET_MISSED if found else ExitCode.PASSED


def figure_differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Compare two reports, times and process memory aside: files, weights, choices, figures.

    Of a folder that was measured again, the options count that made its files.
    """
    return differences(_untimed(_as_made(before)), _untimed(_as_made(after)))


def _as_made(report: Mapping[str, Any]) -> dict[str, Any]:
    made_by = report.get("made_by") or report
    return {**report, "options": made_by.get("options")}


def file_differences(before: Path, after: Path) -> list[str]:
    """Compare a new result with an old one byte by byte, `TIMED_FILES` aside.

    Files of the old one that no job makes are the user's own and don't count.
    """
    names = {name for name in _files(before) if is_made(name)} | _files(after)
    return [
        f"{name} has other bytes" if _both(before / name, after / name) else f"{name} is missing"
        for name in sorted(names - TIMED_FILES)
        if not _same(before / name, after / name)
    ]


def _files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def _read(path: Path) -> tuple[dict[str, Any], Mapping[str, Any]]:
    """Return a report, and what says how its files were made."""
    try:
        report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        made_by = report.get("made_by") or report
        _ = made_by["options"], made_by["environment"]["torch"]["threads"], report["inputs"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            f"{path}: no report.json of a job of this version ({type(error).__name__}: {error})"
        ) from None
    return report, made_by


def _options(made_by: Mapping[str, Any], path: Path) -> JobOptions:
    from pydantic import ValidationError

    from compress_export.options import JobOptions

    try:
        return JobOptions(**made_by["options"])
    except (ValidationError, TypeError) as error:
        raise UsageError(f"{path}: options that this version doesn't know: {error}") from None


def _untimed(value: Any) -> Any:
    """Without what a clock or the system's memory decides; lists of named things by name."""
    if isinstance(value, Mapping):
        return {key: _untimed(entry) for key, entry in value.items() if key not in _TIMED_KEYS}
    if not isinstance(value, list):
        return value
    entries = [entry for entry in value if not _is_timed(entry)]
    if entries and all(isinstance(entry, Mapping) and "name" in entry for entry in entries):
        return {entry["name"]: _untimed(entry) for entry in entries}
    return dict(enumerate(_untimed(entry) for entry in entries))


def _is_timed(entry: Any) -> bool:
    if isinstance(entry, Mapping):
        return entry.get("budget") in _TIMED_BUDGETS or entry.get("cost") == "latency_ms"
    return isinstance(entry, str) and _TIMED_WARNING.search(entry) is not None


def _both(*paths: Path) -> bool:
    return all(path.is_file() for path in paths)


def _same(before: Path, after: Path) -> bool:
    return _both(before, after) and before.read_bytes() == after.read_bytes()
