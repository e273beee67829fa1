"""A fleet from its jobs to its folder: every need once, then a folder and a verdict per board."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from compress_export.errors import UsageError
from compress_export.exit_codes import ExitCode, verdict_code, worst
from compress_export.fleet.adopt import adopt
from compress_export.fleet.matrix import print_matrix
from compress_export.fleet.need import Need, digest, distinct_needs
from compress_export.fleet.report import BoardResult, build_fleet_report, write_fleet_report
from compress_export.fleet.sharing import Sharing
from compress_export.options import JobOptions
from compress_export.outputs import OutputFolder, is_unfinished, refuse_occupied, run_folder
from compress_export.run_action import note_job
from compress_export.shown import print_line

Say = Callable[[str], None]
DEFAULT_OUT = Path("compress-export-out") / "fleet"


@dataclass(frozen=True)
class FleetResult:
    """How a fleet ended.

    Attributes:
        folder: DIR, with a job's DIR for each board and the fleet's report.
        report: what is in fleet.json, see docs/fleet.md.
        exit_code: the worst of the boards'.
    """

    folder: Path
    report: dict[str, Any]
    exit_code: ExitCode


def compress_fleet(jobs: Sequence[JobOptions], console: Console | None = None) -> FleetResult:
    """Compress for several boards. DIR appears whole at the end, or not at all.

    Args:
        jobs: one for each board, otherwise equal.
        console: where progress and the matrix are shown; standard output by default.

    Raises:
        UsageError, InputError, BoardError: the user's mistakes, before any work.
        ExportError, BenchError, SlimError: a tool failed; what is done can be resumed.
    """
    from compress_export.html_report import redraw
    from compress_export.job import checked_task

    console = console or Console(emoji=False)
    options = jobs[0]
    needs = _checked(jobs)
    out = options.out or DEFAULT_OUT
    note_job(options.model_copy(update={"out": out}))

    def say(line: str) -> None:
        print_line(console, line)

    with OutputFolder(out, force=options.force, resume=options.resume) as folder:
        if options.force and is_unfinished(out):  # nobody loses it over a mistake in the data
            checked_task(needs[0].members[0].options, say)
        folder.claim_job(_identity(options, needs))
        reports = _run_all(needs, folder.run / "jobs", console, say)
        results = [
            _collect(need, report, folder, index, say)
            for need, report in zip(needs, reports, strict=True)
            for index in range(len(need.members))
        ]
        results.sort(key=lambda result: [job.board for job in jobs].index(result.given))
        fleet = build_fleet_report(options, needs, results)
        write_fleet_report(fleet, folder.staged)
        redraw(folder.staged, say)
        final = folder.publish()
        for need in needs:
            shutil.rmtree(folder.run / "jobs" / need.name)
    print_matrix(fleet, console)
    say(f"written to {final}")
    return FleetResult(final, fleet, worst(result.exit_code for result in results))


def plan_fleet(jobs: Sequence[JobOptions], console: Console) -> int:
    """Print the needs and what each job would do; write nothing."""
    from compress_export.pipeline import show_plan

    needs, options = _checked(jobs), jobs[0]
    refuse_occupied(options.out or DEFAULT_OUT, force=options.force, resume=options.resume)
    for number, need in enumerate(needs, start=1):
        print_line(console, f"need {number} of {len(needs)}: {need.boards}")
        show_plan(need.members[0].options, console)
    return ExitCode.PASSED


def _checked(jobs: Sequence[JobOptions]) -> tuple[Need, ...]:
    if jobs[0].stages == ("bench",):
        raise UsageError(
            "--stages bench: measures one finished folder again; give a single --board, and its "
            "folder of the fleet with --out"
        )
    return distinct_needs(jobs)


def _identity(options: JobOptions, needs: Sequence[Need]) -> dict[str, Any]:
    """What --resume compares: the options, and every board with all of its descriptor."""
    boards = [
        f"{member.board.id} {digest(member.board)}" for need in needs for member in need.members
    ]
    return {**options.identity(), "board": ", ".join(boards)}


def _run_all(needs: Sequence[Need], jobs: Path, console: Console, say: Say) -> list[dict[str, Any]]:
    """Run the first board's job of every need; finished ones are read."""
    reports = []
    for number, need in enumerate(needs, start=1):
        say(f"need {number} of {len(needs)}: {need.boards}")
        earlier = tuple(run_folder(jobs / other.name) for other in needs[: number - 1])
        reports.append(_run_one(need, jobs / need.name, Sharing(earlier), console, say))
    return reports


def _run_one(need: Need, out: Path, sharing: Sharing, console: Console, say: Say) -> dict[str, Any]:
    from compress_export.job import open_job
    from compress_export.pipeline import run_stages
    from compress_export.rebench import read_report

    if (out / "report.json").is_file():
        say(f"{need.name}: finished before")
        return read_report(out)
    changes = {"out": out, "force": False, "resume": is_unfinished(out)}
    options = need.members[0].options.model_copy(update=changes)
    with open_job(options, console) as job:
        job.sharing = sharing
        return run_stages(job).report


def _collect(
    need: Need, report: dict[str, Any], folder: OutputFolder, index: int, say: Say
) -> BoardResult:
    """Put one board's folder in its place."""
    member = need.members[index]
    place = folder.staged / member.board.id
    shutil.copytree(folder.run / "jobs" / need.name, place)
    if index:
        report = adopt(place, report, member, say)
    statuses = [check["status"] for check in report["checks"]]
    code = verdict_code(statuses, require_measured=member.options.require_measured)
    return BoardResult(member.options.board, member.board.id, need.name, report, code)
