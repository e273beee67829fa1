"""`compress-export report`: a run as a page again, or several runs on one page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import typer

from compress_export.errors import UsageError
from compress_export.user_paths import refuse_no_place


def report(
    folders: Annotated[
        list[Path],
        typer.Argument(help="Finished runs, each the DIR of a job or a fleet.", metavar="DIR"),
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="Page to write. Default for one DIR: DIR/report.html.", metavar="FILE"),
    ] = None,
) -> Callable[[], int]:
    """Draw report.html of one run or fleet anew, or compare several runs on one page."""
    return lambda: _write(folders, out)


def _write(folders: Sequence[Path], out: Path | None) -> int:
    from compress_export.html_report import write_comparison, write_html_report, write_report_to

    if len(folders) > 1 and out is None:
        raise UsageError(f"{len(folders)} runs are compared on a page of their own: name it, --out")
    refuse_no_place("--out", out)
    try:
        if out is None:
            page = write_html_report(folders[0])
        elif len(folders) == 1:
            page = write_report_to(folders[0], out)
        else:
            page = write_comparison(folders, out)
    except PermissionError as error:
        raise UsageError(f"cannot write {error.filename}: no permission; try --out FILE") from None
    typer.echo(f"written to {page}")
    return 0
