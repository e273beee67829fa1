"""One gate from its options to its exit code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from compress_export.errors import UsageError
from compress_export.exit_codes import ExitCode, verdict_code
from compress_export.gate.history import add_to_history, check_history
from compress_export.gate.hosted_ci import summary, summary_path, workflow_commands
from compress_export.gate.judged import (
    Case,
    judge_regressions,
    judge_report,
    unverified_board,
)
from compress_export.gate.junit import write_junit
from compress_export.gate.limits import Allowed, Limits, parse_fail_on, read_limits
from compress_export.gate.lines import print_cases
from compress_export.gate.reported import Reported, read_reports
from compress_export.gate.why import print_why, why_markdown
from compress_export.user_paths import refuse_no_place

if TYPE_CHECKING:
    from rich.console import Console

    from boards import Board
    from compress_export.gate.layers import FileLayers


@dataclass(frozen=True)
class Asked:
    """The options of `gate`, see docs/gate.md."""

    report: Path
    boards: tuple[str, ...] = ()
    limits: Path | None = None
    baseline: Path | None = None
    fail_on: tuple[str, ...] = ()
    require_measured: bool = False
    why: bool = False
    junit: Path | None = None
    annotations: bool = False
    history: Path | None = None


def run_gate(asked: Asked, console: Console) -> ExitCode:
    """Judge, show and write what was asked for.

    Raises:
        UsageError, BoardError: wrong options, a bad file, or nothing to judge by.
    """
    limits = Limits() if asked.limits is None else read_limits(asked.limits)
    allowed = _allowed(asked, limits)
    _check_places(asked)
    reports = read_reports(asked.report)
    cases = _cases(asked, reports, limits, allowed)
    print_cases(cases, console)
    by_time = any(c.check.status == "fail" and "latency" in c.check.budget for c in cases)
    layers = _layers(reports) if asked.why else []
    for file in layers:
        print_why(file, console, by_time=by_time)
    _write(asked, reports, cases, why_markdown(layers, by_time=by_time), console)
    statuses = [case.check.status for case in cases]
    return verdict_code(statuses, require_measured=asked.require_measured)


def _allowed(asked: Asked, limits: Limits) -> Mapping[str, Allowed]:
    """Regressions of the file, those of the command line in their place."""
    allowed = dict(limits.regressions)
    if asked.fail_on:
        allowed.update(parse_fail_on(asked.fail_on))
    if asked.fail_on and asked.baseline is None:
        raise UsageError("--fail-on compares with an earlier run: give its --baseline OLD_REPORT")
    if asked.baseline is not None and not allowed:
        raise UsageError(
            f"--baseline {asked.baseline}: say how much worse it may be, with --fail-on "
            '"size:2% latency:10% top1:0.2" or regressions: in the --limits file'
        )
    return allowed


def _check_places(asked: Asked) -> None:
    refuse_no_place("--junit", asked.junit)
    refuse_no_place("--history", asked.history)
    if asked.history is not None:
        check_history(asked.history)


def _cases(
    asked: Asked,
    reports: Sequence[Reported],
    limits: Limits,
    allowed: Mapping[str, Allowed],
) -> list[Case]:
    """All cases; a board without budgets among others has none, and hides nothing of theirs."""
    boards = _boards(asked)
    cases = [
        replace(case, board=_name(report, reports, board))
        for report in reports
        for board in boards
        for case in judge_report(report, board, limits.budgets)
    ]
    if asked.baseline is not None:
        cases += _compared(reports, read_reports(asked.baseline), allowed)
    if not cases:
        judges = [board.id for board in boards if board] or [report.board for report in reports]
        reason = ", ".join(f"board {name} has no budgets" for name in judges)
        raise UsageError(f"{asked.report}: nothing to judge, {reason}; give --limits")
    return cases


def _name(report: Reported, reports: Sequence[Reported], board: Board | None) -> str:
    """What a report's cases are called: no two reports share a name, or one would hide the other
    in what is written."""
    if board is None:
        return report.board
    return f"{report.board} as {board.id}" if len(reports) > 1 else board.id


def _boards(asked: Asked) -> list[Board | None]:
    from boards import load_board

    return [load_board(name) for name in asked.boards] or [None]


def _compared(
    reports: Sequence[Reported],
    old: Sequence[Reported],
    allowed: Mapping[str, Allowed],
) -> list[Case]:
    """Regressions of each report against the old one of its board.

    Two single reports are compared whatever their boards are called, and one board alone may be
    held against its fleet; a fleet that has lost a board may not keep that to itself.
    """
    by_board = {report.board: report for report in old}
    found: list[Case] = []
    for report in reports:
        before = old[0] if len(old) == len(reports) == 1 else by_board.get(report.board)
        found += judge_regressions(report, before, allowed)
    if len(reports) > 1:
        for board in sorted(by_board.keys() - {report.board for report in reports}):
            found += unverified_board(by_board[board], allowed)
    return found


def _layers(reports: Sequence[Reported]) -> list[FileLayers]:
    from compress_export.gate.apart import layers_apart

    found: dict[str, FileLayers] = {}
    for report in reports:
        if report.bundle is None:
            raise UsageError(
                f"--why: the files of {report.source} are not there; give a job's folder with its "
                "bundle/"
            )
        for file in report.files:
            if file.sha256 not in found:
                layers = layers_apart(report.bundle, file)
                name = f"{report.board} {layers.file}" if len(reports) > 1 else layers.file
                found[file.sha256] = replace(layers, file=name)
    return list(found.values())


def _write(
    asked: Asked, reports: Sequence[Reported], cases: Sequence[Case], why: str, console: Console
) -> None:
    if asked.junit is not None:
        seconds = {
            _name(report, reports, board): report.seconds
            for report in reports
            for board in (None, *_boards(asked))
        }
        write_junit(asked.junit, cases, seconds=seconds, require_measured=asked.require_measured)
    if asked.history is not None:
        add_to_history(asked.history, cases)
    if asked.annotations:
        for line in workflow_commands(cases, require_measured=asked.require_measured):
            console.out(line, highlight=False)
    if (path := summary_path()) is not None:
        with path.open("a", encoding="utf-8") as file:
            file.write(summary(cases, why) + "\n")
