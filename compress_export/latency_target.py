"""A latency budget in the search: when it can be searched for, and how files are measured."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from compress_export.options import JobOptions

if TYPE_CHECKING:
    from boards import Board
    from compress_export.exporting import Exports
    from exporters import Exported

TIMED = ("int8", "float32")
_REPEATS = 4


def why_not_searchable(board: Board, formats: Sequence[str] | None = None) -> str | None:
    """Return why this machine can't tell how fast a network is on the board; None where it can.

    Args:
        formats: of the files that count; all of the board's by default.
    """
    from exporters.profiles.select import profile_for
    from runtime_bench import BoardRef, host_facts, host_matches
    from runtime_bench.host import missing_isa, surplus_isa

    host = host_facts()
    reference = BoardRef(board.id, board.kind, board.cpu.arch, board.cpu.isa, board.cpu.cores)
    if host_matches(host, reference):
        if board.target_precision == "float16":
            return "latency in float16 has no tables"
        for format in board.formats if formats is None else formats:
            profile = profile_for(board, format)
            if not profile.benchable:
                return f"{format} files are timed on CPU cores here, not on {profile.name}"
        return None
    if host.arch != board.cpu.arch:
        return f"this machine is {host.arch}, board {board.id} is {board.cpu.arch}"
    if surplus := surplus_isa(host, reference):
        return f"this machine has {', '.join(surplus)}, which board {board.id} lacks"
    return f"this machine lacks {', '.join(missing_isa(host, reference))} of board {board.id}"


def no_tables(precision: str) -> str | None:
    """Return why layers aren't timed in a precision; None where they are."""
    return None if precision in TIMED else f"latency in {precision} has no tables"


def refuse_unsearchable(options: JobOptions, board: Board) -> None:
    """Refuse `--target-latency` before any work where latency can't be measured.

    Args:
        options: formats of theirs that the board hasn't are refused elsewhere.

    Raises:
        UsageError: with the reason.
    """
    from compress_export.errors import UsageError

    if options.target_latency_ms is None:
        return
    reason = why_not_searchable(board, options.formats)
    if reason is None and options.named_precisions is not None:
        reason = no_tables(options.named_precisions[0])
    if reason is not None:
        raise UsageError(
            f"--target-latency {options.target_latency_ms:g}ms: {reason}; run this where it can be "
            "timed, or give --target-macs"
        )


def files_p90_ms(
    exports: Exports,
    folder: Path,
    files: Sequence[Exported],
    *,
    threads: int,
    runs: int,
) -> dict[str, float]:
    """Measure files of one precision on this machine as the bench will: format -> p90 in ms.

    Measures several times over and takes the smallest, which is what the files need when nothing
    else disturbs the machine.

    Args:
        folder: where the files lie; it needs no manifest and stays as it is.
        files: at most one of each format.
        threads: of one operator.
        runs: timed runs of each file, all in all.

    Raises:
        BenchError: a file can't be loaded or run.
    """
    from runtime_bench import BenchError, measure_folder

    with tempfile.TemporaryDirectory(dir=folder.parent) as name:
        aside = Path(name)
        for path in (path for file in files for path in file.paths):
            (aside / path).hardlink_to(folder / path)  # onnxruntime follows no links to weights
        exports.finish_reference(aside, files)
        best_ms: dict[str, float] = {}
        for _ in range(_REPEATS):
            for file in measure_folder(aside, threads=threads, runs=max(1, runs // _REPEATS)):
                if file.latency_ms is None:
                    raise BenchError(f"{file.name}: {file.note}")
                p90_ms = file.latency_ms["p90"]
                best_ms[file.format] = min(p90_ms, best_ms.get(file.format, p90_ms))
    return best_ms
