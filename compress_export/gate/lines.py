"""The gate's outcome as lines for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from compress_export.entries import STATUS_STYLES
from compress_export.gate.judged import Case
from compress_export.table import check_line

if TYPE_CHECKING:
    from rich.console import Console


def case_line(case: Case) -> str:
    """ "jetson slim.int8.onnx file_size_mib 2 MiB, limit 8 MiB, headroom 6 MiB"."""
    return f"{case.board} {check_line(case.check.to_json())}"


def outcome(cases: Sequence[Case]) -> str:
    """ "3 passed, 1 failed, 2 unverified"."""
    words = {"passed": "pass", "failed": "fail", "unverified": "unverified"}
    counts = {
        word: sum(case.check.status == status for case in cases) for word, status in words.items()
    }
    return ", ".join(f"{count} {word}" for word, count in counts.items() if count)


def print_cases(cases: Sequence[Case], console: Console) -> None:
    """One line for each case, and how many of them passed."""
    from rich.markup import escape

    for case in cases:
        status = case.check.status
        line = f"[{STATUS_STYLES[status]}]{status:<10}[/] {escape(case_line(case))}"
        console.print(line, highlight=False, soft_wrap=True)
    console.print(f"gate: {outcome(cases)}", highlight=False)
