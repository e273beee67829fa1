"""What GitHub Actions shows of a gate: annotations at the job, and a step summary.

Commands and their escapes are those of the runner's toolkit: %, CR and LF in a message, and also
colon and comma in a property.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from compress_export.gate.judged import Case
from compress_export.gate.lines import outcome
from compress_export.table import check_line

SUMMARY_VARIABLE = "GITHUB_STEP_SUMMARY"
_SIGNS = {"pass": "✅ pass", "fail": "❌ fail", "unverified": "⚠️ unverified"}


def workflow_commands(cases: Sequence[Case], *, require_measured: bool) -> list[str]:
    """One command for each case that failed or is unverified, and a notice with the counts."""
    lines = []
    for case in cases:
        check = case.check
        if check.status == "pass":
            continue
        level = "error" if check.status == "fail" or require_measured else "warning"
        title = " ".join(filter(None, (case.board, check.file, check.budget, check.status)))
        lines.append(command(level, check_line(check.to_json()), title=title))
    return [*lines, command("notice", outcome(cases), title="compress-export gate")]


def command(level: str, message: str, *, title: str) -> str:
    """`::error title=...::message`, escaped."""
    return f"::{level} title={_property(title)}::{_data(message)}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def summary_path(environment: Mapping[str, str] | None = None) -> Path | None:
    """The file that the runner shows as the step's summary; None elsewhere."""
    name = (os.environ if environment is None else environment).get(SUMMARY_VARIABLE)
    return Path(name) if name else None


def summary(cases: Sequence[Case], why: str = "") -> str:
    """The cases as a Markdown table, those that failed first."""
    order = ("fail", "unverified", "pass")
    lines = [f"### compress-export gate: {outcome(cases)}", ""]
    lines += ["| | board | file | budget | value | limit | headroom | |"]
    lines += ["|---|---|---|---|---:|---:|---:|---|"]
    lines += [_row(case) for case in sorted(cases, key=lambda c: order.index(c.check.status))]
    return "\n".join([*lines, "", *([why, ""] if why else [])])


def _row(case: Case) -> str:
    check = case.check
    cells = [
        _SIGNS[check.status],
        case.board,
        check.file,
        check.budget,
        _amount(check.value, check.unit),
        _amount(check.limit, check.unit),
        _amount(case.headroom, check.unit),
        check.note,
    ]
    return "| " + " | ".join(cell(text) for text in cells) + " |"


def _amount(value: float | None, unit: str) -> str:
    return "-" if value is None else f"{value:.4g} {unit}"


def cell(text: str) -> str:
    """A text as a table's cell: no line breaks, bars or tags."""
    return " ".join(text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").split())
