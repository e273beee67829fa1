"""A finished folder becomes that of another board with the same need."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from compress_export.fleet.need import Member
from compress_export.provenance import board_sha256


def adopt(
    folder: Path, report: dict[str, Any], member: Member, say: Callable[[str], None]
) -> dict[str, Any]:
    """Address the folders to the board, and hold their files to its budgets.

    Args:
        folder: a copy of a finished DIR, changed in place.
        report: what is in its report.json.
        say: is told what is done.

    Returns:
        The board's report, which is in `folder` then.
    """
    from compress_export.bundling import complete_bundle
    from compress_export.gate.judged import judge_report
    from compress_export.gate.reported import read_reports
    from compress_export.html_report import redraw
    from compress_export.report import write_report
    from compress_export.sealing import seal_bundle
    from exporters.bundle import address_to
    from runtime_bench import overall, violations

    board = member.board
    for name in ("bundle", "reference"):
        if (folder / name).is_dir():
            address_to(folder / name, board)
    if (folder / "bundle").is_dir():
        arenas = (entry.get("arena") for entry in report["artifacts"])
        complete_bundle(folder / "bundle", board, arena=next(filter(None, arenas), None))
    (found,) = read_reports(folder)
    judged = judge_report(found, board, {}) if found.files else ()
    checks = [*found.targets, *(case.check for case in judged)]
    mine = {
        **report,
        "board": board.id,
        "inputs": {**report["inputs"], "board_sha256": board_sha256(board)},
        "options": {**report["options"], "board": member.options.board},
        # Of a need the board that is this machine is the only member, so this is another one.
        "artifacts": [{**entry, "measured_on": "host"} for entry in report["artifacts"]],
        "checks": [check.to_json() for check in checks],
        "violations": [check.to_json() for check in violations(checks)],
        "verdict": overall(checks),
    }
    write_report(mine, folder)
    seal_bundle(folder / "bundle", mine, board=board, options=member.options, say=say)
    redraw(folder, say)
    return mine
