"""`compress-export gate REPORT`: hold a finished run to budgets and to an earlier run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

_JUDGED = "What is judged"
_SHOWN = "What is written"


def gate(
    report: Annotated[
        Path,
        typer.Argument(
            help="A job's report.json or its folder, a fleet's folder, or a file of "
            "`runtime-bench --json`.",
            metavar="REPORT",
        ),
    ],
    board: Annotated[
        list[str] | None,
        typer.Option(
            help="Judge by this board's budgets; may be given several times. Default: the "
            "report's own.",
            rich_help_panel=_JUDGED,
            metavar="BOARD",
        ),
    ] = None,
    limits: Annotated[
        Path | None,
        typer.Option(
            help="YAML file with limits in human units, in place of the board's.",
            rich_help_panel=_JUDGED,
            metavar="FILE",
        ),
    ] = None,
    baseline: Annotated[
        Path | None,
        typer.Option(
            help="Report of an earlier run to compare with.",
            rich_help_panel=_JUDGED,
            metavar="OLD_REPORT",
        ),
    ] = None,
    fail_on: Annotated[
        list[str] | None,
        typer.Option(
            help='How much worse than that it may be: "size:2% latency:10% top1:0.2".',
            rich_help_panel=_JUDGED,
            metavar="LIST",
        ),
    ] = None,
    require_measured: Annotated[
        bool,
        typer.Option(
            "--require-measured",
            help="End with code 4 where something could not be measured.",
            rich_help_panel=_JUDGED,
        ),
    ] = False,
    why: Annotated[
        bool,
        typer.Option(
            "--why",
            help="List the layers of each file by bytes, MACs and time.",
            rich_help_panel=_SHOWN,
        ),
    ] = False,
    junit: Annotated[
        Path | None,
        typer.Option(
            help="JUnit XML, one case for each board, file and budget.",
            rich_help_panel=_SHOWN,
            metavar="FILE",
        ),
    ] = None,
    annotations: Annotated[
        bool,
        typer.Option(
            "--annotations",
            help="Annotations for GitHub Actions.",
            rich_help_panel=_SHOWN,
        ),
    ] = False,
    history: Annotated[
        Path | None,
        typer.Option(
            help="Add the figures to a benchmark file (customSmallerIsBetter).",
            rich_help_panel=_SHOWN,
            metavar="FILE",
        ),
    ] = None,
) -> Callable[[], int]:
    """Hold a finished run to budgets and to an earlier run: one line each, and an exit code.

    Exit codes: 0 passed, 1 a limit missed, 2 wrong usage or a bad file, 3 a tool failed, 4 required
    but not measured.
    """

    def action() -> int:
        from rich.console import Console

        from compress_export.gate.run import Asked, run_gate

        asked = Asked(
            report=report,
            boards=tuple(board or ()),
            limits=limits,
            baseline=baseline,
            fail_on=tuple(fail_on or ()),
            require_measured=require_measured,
            why=why,
            junit=junit,
            annotations=annotations,
            history=history,
        )
        return int(run_gate(asked, Console(emoji=False)))

    return action
