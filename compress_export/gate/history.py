"""Figures for a benchmark history, as github-action-benchmark's `customSmallerIsBetter` reads them.

The file holds one run's entries: that action keeps the runs. An entry of the same name is replaced,
others stay, so that several gates of one CI job may fill one file.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from compress_export.errors import UsageError
from compress_export.gate.judged import Case
from compress_export.turns import turn_at
from compress_export.whole_files import write_whole
from runtime_bench.plain_json import read_json


def add_to_history(path: Path, cases: Sequence[Case]) -> None:
    """Add the measured cases to a file, which is replaced in one step; gates take turns at it.

    Raises:
        UsageError: what is there is no such file.
    """
    with turn_at(path):
        found = {entry["name"]: entry for entry in _read(path)}
        found.update({entry["name"]: entry for entry in entries(cases)})
        write_whole(path, json.dumps(list(found.values()), indent=2, ensure_ascii=False) + "\n")


def entries(cases: Sequence[Case]) -> list[dict[str, Any]]:
    """One entry for each figure that was measured; regressions, which compare two, are left out."""
    return [
        {
            "name": " / ".join(filter(None, (case.board, case.check.file, case.check.budget))),
            "unit": case.check.unit,
            "value": case.check.value,
            "extra": _extra(case),
        }
        for case in cases
        if case.check.value is not None and not case.check.budget.endswith("_regression")
    ]


def _extra(case: Case) -> str:
    check = case.check
    text = f"{check.status}, limit {check.limit:g} {check.unit}"
    return f"{text}\n{check.note}" if check.note else text


def check_history(path: Path) -> None:
    """Raise UsageError where the file can't be added to, before any work."""
    _read(path)


def _read(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    try:
        content = read_json(path)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not JSON"
        raise UsageError(f"--history {path}: cannot be read ({reason})") from None
    if not isinstance(content, list) or not all(
        isinstance(entry, dict) and isinstance(entry.get("name"), str) for entry in content
    ):
        raise UsageError(
            f"--history {path}: holds no list of entries with a name; give a file of its own"
        )
    return content
