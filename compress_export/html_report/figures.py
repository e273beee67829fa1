"""The tables and tiles of the page, as text made from report.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from compress_export.entries import p90_ms, score_of
from compress_export.html_report.drawing import Table
from compress_export.html_report.run_folder import RunFolder
from compress_export.html_report.words import (
    NONE,
    count_text,
    ms_text,
    percent_text,
    points_text,
    ratio_text,
    seconds_text,
    size_text,
)

_WORDS = {"pass": "Passed", "fail": "Failed", "unverified": "Not verified"}
_BUDGETS = {
    "file_size_mib": "file size",
    "weights_mib": "weights",
    "activation_memory_mib": "activations",
    "peak_rss_mib": "process memory",
    "latency_p90_ms": "latency p90",
    "ram_mib": "RAM",
    "flash_mib": "flash",
    "accuracy_drop_points": "accuracy drop",
}


@dataclass(frozen=True)
class Cell:
    """A figure, and how it compares with the baseline's."""

    text: str
    ratio: str = ""


@dataclass(frozen=True)
class FileRow:
    """One model file."""

    number: int
    name: str
    shipped: bool
    cells: Sequence[Cell]


@dataclass(frozen=True)
class CheckRow:
    """One budget of one file."""

    budget: str
    file: str
    value: str
    limit: str
    headroom: str
    status: str


@dataclass(frozen=True)
class Tile:
    """A headline figure."""

    name: str
    value: str
    was: str


@dataclass(frozen=True)
class Verdict:
    """How it ended, in a word and in a sentence."""

    status: str
    word: str
    sentence: str


def verdict_of(report: Mapping[str, Any]) -> Verdict:
    """Say what the verdict stands on."""
    checks = report.get("checks", ())
    counts = {s: sum(c["status"] == s for c in checks) for s in ("pass", "fail", "unverified")}
    said = [f"{counts['pass']} of {len(checks)} checks passed"]
    if counts["fail"]:
        failed = sorted({budget_name(c["budget"]) for c in checks if c["status"] == "fail"})
        said.append(f"missed: {', '.join(failed)}")
    if counts["unverified"]:
        unseen = sorted({budget_name(c["budget"]) for c in checks if c["status"] == "unverified"})
        said.append(f"not verified on this machine: {', '.join(unseen)}")
    status = str(report["verdict"])
    return Verdict(status, _WORDS.get(status, status), f"{'; '.join(said)}.")


def budget_name(budget: str) -> str:
    """A budget for people."""
    return _BUDGETS.get(budget, budget)


def check_rows(checks: Sequence[Mapping[str, Any]]) -> list[CheckRow]:
    """Return the budgets, those that failed first."""
    order = {"fail": 0, "unverified": 1, "pass": 2}
    return [
        CheckRow(
            budget_name(c["budget"]),
            c["file"] or "the whole job",
            _amount(c["value"], c["unit"]),
            _amount(c["limit"], c["unit"]),
            NONE if c["value"] is None else _amount(c["limit"] - c["value"], c["unit"]),
            c["status"],
        )
        for c in sorted(checks, key=lambda c: order.get(c["status"], 1))
    ]


def check_notes(checks: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what was noted beside budgets, each note once."""
    noted: dict[str, list[str]] = {}
    for check in checks:
        if check.get("note"):
            noted.setdefault(check["note"], []).append(budget_name(check["budget"]))
    return [f"{', '.join(dict.fromkeys(names))}: {note}." for note, names in noted.items()]


def tiles(run: RunFolder) -> list[Tile]:
    """Compare the first file of the bundle with the baseline's float file of its format."""
    if not run.shipped:
        return []
    file, base = run.shipped[0], baseline_of(run, run.shipped[0])
    found = [_smaller("Size", size_text, base.get("size_bytes"), file.get("size_bytes"))]
    score, before = score_of(file), score_of(run.report["stages"]["baseline"])
    if score is not None:
        value = percent_text(score)
        if before is not None:
            value = points_text(100 * (score - before)).removesuffix(" points") + " pt"
        found.append(Tile(run.metric.capitalize(), value, _was(percent_text, before, score)))
    found.append(_smaller("Latency p90", ms_text, p90_ms(base), p90_ms(file)))
    found.append(
        _smaller("Activations", size_text, base.get("activation_bytes"), file["activation_bytes"])
    )
    return [tile for tile in found if tile.value != NONE]


def _smaller(name: str, text: Any, before: float | None, after: float | None) -> Tile:
    ratio = ratio_text(before, after)
    word = "faster" if name.startswith("Latency") else "smaller"
    if not ratio or before is None or after is None:
        return Tile(name, text(after), "")
    if before < after:
        ratio, word = ratio_text(after, before), "slower" if word == "faster" else "larger"
    return Tile(name, f"{ratio} {word}", _was(text, before, after))


def _was(text: Any, before: float | None, after: float | None) -> str:
    return text(after) if before is None else f"{text(before)} → {text(after)}"


def tiles_note(run: RunFolder) -> str:
    """Say which files the tiles compare, and where they were measured."""
    if not run.shipped:
        return ""
    file = run.shipped[0]
    base = baseline_of(run, file).get("name", "nothing")
    return f"{file['name']} against {base}, measured on the {file['measured_on']}."


def baseline_of(run: RunFolder, file: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the baseline's float file of a file's format, else of any; empty without one."""
    floats = [e for e in run.artifacts if (e["stage"], e["precision"]) == ("baseline", "float32")]
    same = [e for e in floats if e["format"] == file["format"]]
    return next(iter([*same, *floats]), {})


def file_rows(run: RunFolder) -> list[FileRow]:
    """Return all files with ratios against the baseline's float file, in the report's order."""
    return [
        FileRow(number, entry["name"], entry in run.shipped, _file_cells(run, entry))
        for number, entry in enumerate(run.artifacts, 1)
    ]


def _file_cells(run: RunFolder, entry: Mapping[str, Any]) -> list[Cell]:
    base = baseline_of(run, entry)
    score, before = score_of(entry), score_of(run.report["stages"]["baseline"])
    p50 = (entry.get("latency_ms") or {}).get("p50")
    base_p50 = (base.get("latency_ms") or {}).get("p50")

    def cell(text: Any, key: str) -> Cell:
        return Cell(text(entry.get(key)), _ratio(base, entry, base.get(key), entry.get(key)))

    lost = "" if score is None or before is None else points_text(100 * (score - before))
    return [
        cell(size_text, "size_bytes"),
        Cell(percent_text(score), lost),
        Cell(ms_text(p50), _ratio(base, entry, base_p50, p50)),
        Cell(ms_text(p90_ms(entry)), _ratio(base, entry, p90_ms(base), p90_ms(entry))),
        cell(size_text, "activation_bytes"),
        Cell(size_text(entry.get("peak_rss_bytes"))),
        Cell(percent_text(entry.get("agreement"))),
    ]


def _ratio(
    base: Mapping[str, Any], entry: Mapping[str, Any], before: float | None, after: float | None
) -> str:
    return "" if base is entry else ratio_text(before, after)


def networks(run: RunFolder) -> Table:
    """Return the torch networks."""
    stages: Mapping[str, Any] = run.report["stages"]
    base = stages["baseline"]
    rows = []
    for name, entry in stages.items():
        ratios = {
            key: "" if entry is base else f" ({ratio_text(base[key], entry[key])} smaller)"
            for key in ("params", "macs")
        }
        validation = entry.get("validation_top1")
        if validation is None:
            validation = entry.get("validation_score")
        rows.append(
            (
                name,
                count_text(entry["params"]) + ratios["params"],
                count_text(entry["macs"]) + ratios["macs"],
                percent_text(score_of(entry)),
                percent_text(validation),
            )
        )
    metric = run.metric
    return Table(
        ("network", "parameters", "MACs", f"{metric}, test", f"{metric}, validation"), rows
    )


def device_rows(measurements: Sequence[Mapping[str, Any]]) -> Table:
    """Return what a device measured."""
    rows = [
        (
            str(entry["name"]),
            percent_text(score_of(entry)),
            ms_text((entry.get("latency_ms") or {}).get("p50")),
            ms_text(p90_ms(entry)),
            size_text(entry.get("peak_rss_bytes")),
            str(entry.get("runtime") or entry.get("note") or NONE),
        )
        for entry in measurements
    ]
    return Table(("file", "top-1", "p50", "p90", "peak RSS", "runtime"), rows)


def arenas(artifacts: Sequence[Mapping[str, Any]]) -> Table | None:
    """Return the memory that files took in TensorFlow Lite Micro; None where none was measured."""
    keys = ("head_bytes", "tail_bytes", "total_bytes", "smallest_bytes")
    rows = [
        (str(entry["name"]), *(size_text(entry["arena"].get(key)) for key in keys))
        for entry in artifacts
        if entry.get("arena")
    ]
    return (
        Table(("file", "head", "tail", "together", "smallest that works"), rows) if rows else None
    )


def environment(report: Mapping[str, Any]) -> Table:
    """Return machine and libraries."""
    found: Mapping[str, Any] = report.get("environment", {})
    rows = [("Python", str(found.get("python", NONE))), ("system", str(found.get("system", NONE)))]
    rows += [(name, flat(value)) for name, value in (found.get("host") or {}).items()]
    rows += [(name, str(v or "not there")) for name, v in (found.get("libraries") or {}).items()]
    return Table(("what", "which"), rows)


def timings(report: Mapping[str, Any]) -> Table:
    """Return the wall time of each stage."""
    spent: Mapping[str, float] = report.get("timings_seconds", {})
    rows = [(stage, seconds_text(seconds)) for stage, seconds in spent.items()]
    rows.append(("together", seconds_text(sum(spent.values()))))
    return Table(("stage", "time"), rows)


def options(report: Mapping[str, Any]) -> Table:
    """Return the options of the job; those not given are decided by the program."""
    given: Mapping[str, Any] = report.get("options", {})
    return Table(("option", "value"), [(name, flat(value)) for name, value in given.items()])


def flat(value: Any) -> str:
    """A JSON value on one line."""
    if value is None:
        return NONE
    if isinstance(value, (list, tuple)):
        return ", ".join(map(flat, value)) or NONE
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {flat(entry)}" for key, entry in value.items()) or NONE
    return str(value)


def _amount(value: float | None, unit: str) -> str:
    return NONE if value is None else f"{value:.4g} {unit}".replace("-", "−")
