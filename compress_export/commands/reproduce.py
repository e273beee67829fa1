"""`compress-export reproduce REPORT`: run a job again and compare."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer


def reproduce(
    report: Annotated[
        Path, typer.Argument(help="A job's report.json or its folder.", metavar="REPORT")
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the new result. Default: DIR.reproduced beside DIR.", metavar="DIR"
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace that folder, and drop an unfinished run.")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an unfinished run.")] = False,
) -> Callable[[], int]:
    """Run the job of a report again, and compare files, channels, weights and figures.

    Exit codes: 0 all equal, times aside; 1 something differs; others as of a job.
    """

    def action() -> int:
        from rich.console import Console

        from compress_export.reproducing import reproduce as run_again

        return run_again(report, out, Console(emoji=False), force=force, resume=resume)

    return action
