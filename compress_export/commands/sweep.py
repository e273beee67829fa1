"""`compress-export sweep`: many jobs, for boards, targets and seeds of a file, on Ray."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer


def sweep(
    file: Annotated[
        Path, typer.Argument(help="YAML file with boards, targets and seeds.", metavar="SWEEP.yaml")
    ],
    address: Annotated[
        str | None,
        typer.Option(
            help="Ray cluster, as ray://HOST:10001. Default: this machine.", metavar="URL"
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for all results. Default: compress-export-out/SWEEP.", metavar="DIR"
        ),
    ] = None,
) -> Callable[[], int]:
    """Compress for every board, target and seed of a file, side by side, and compare the results.

    The same command goes on after an interruption. Exit codes: the worst of the trials', 3 for one
    that failed; 2 for mistakes in the file.
    """
    return lambda: _run(file, address, out)


def _run(file: Path, address: str | None, out: Path | None) -> int:
    from rich.console import Console

    from compress_export.sweep.plan import read_sweep
    from compress_export.sweep.run import run_sweep
    from compress_export.user_paths import expanded

    folder = Path.cwd() / (out or Path("compress-export-out") / file.stem)
    sweep = read_sweep(expanded(file), folder)
    return int(run_sweep(sweep, folder, address, Console(emoji=False)))
