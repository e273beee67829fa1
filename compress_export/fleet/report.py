"""fleet.json and fleet.md: which need served which board, and how every file did there."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from compress_export.exit_codes import ExitCode
from compress_export.fleet.matrix import matrix_markdown
from compress_export.fleet.need import Need
from compress_export.options import JobOptions
from compress_export.outputs import FLEET_REPORT

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class BoardResult:
    """How one board did.

    Attributes:
        given: the board as the user named it.
        board: its id, which is also the name of its folder.
        need: the board whose job made the files.
        report: what is in its report.json.
        exit_code: of its job alone.
    """

    given: str
    board: str
    need: str
    report: Mapping[str, Any]
    exit_code: ExitCode


def build_fleet_report(
    options: JobOptions, needs: Sequence[Need], results: Sequence[BoardResult]
) -> dict[str, Any]:
    """Return the fleet's report as plain JSON values, as docs/fleet.md has them."""
    order = ("fail", "unverified", "pass")
    verdicts = [result.report["verdict"] for result in results]
    seconds = {result.need: sum(result.report["timings_seconds"].values()) for result in results}
    return {
        "schema_version": SCHEMA_VERSION,
        "tool": {"name": "compress-export", "version": metadata.version("compress-export")},
        "command": ["compress-export", *sys.argv[1:]],
        "options": {name: v for name, v in options.identity().items() if name != "board"},
        "fleet": [
            {
                "board": result.board,
                "folder": result.board,
                "need": result.need,
                "verdict": result.report["verdict"],
                "exit_code": int(result.exit_code),
            }
            for result in results
        ],
        "needs": [
            {
                "name": need.name,
                "boards": [member.board.id for member in need.members],
                "decides": need.decides,
                "seconds": seconds[need.name],
            }
            for need in needs
        ],
        "checks": [
            {"board": result.board, **check}
            for result in results
            for check in result.report["checks"]
        ],
        "verdict": min(verdicts, key=order.index),
    }


def write_fleet_report(report: Mapping[str, Any], folder: Path) -> None:
    """Write fleet.json and fleet.md."""
    text = json.dumps(report, indent=2, allow_nan=False)
    (folder / FLEET_REPORT).write_text(text + "\n", encoding="utf-8")
    (folder / "fleet.md").write_text(matrix_markdown(report), encoding="utf-8")
