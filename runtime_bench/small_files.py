"""Time many small model files, such as one layer at many widths, in a process of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from runtime_bench.process import WorkerProcess

ROUNDS = 8
BURST_MS = 2.0
_BLOCK_FILES = 96
_BLOCK_BYTES = 64 * 2**20
"""What is loaded at a time; runtimes need several times the bytes on disk."""

_SILENCE_S = 600.0


def time_small_files(
    paths: Sequence[Path],
    file_format: str,
    *,
    threads: int = 1,
    rounds: int = ROUNDS,
    burst_ms: float = BURST_MS,
    progress: Callable[[int], None] | None = None,
) -> list[float]:
    """Return the milliseconds of one run of every file, in order; see `bursts.time_in_bursts`.

    Files are loaded and timed in blocks, so that thousands of them fit.

    Args:
        paths: files of one format; a free dimension of an input counts as 1.
        threads: of one operator.
        rounds: bursts of each file.
        burst_ms: about how long one burst lasts.
        progress: gets the number of files done, after each block.

    Raises:
        RuntimeMissingError: no runtime for the format.
        BenchError: a file can't be loaded or run.
    """
    times_ms: list[float] = []
    with WorkerProcess(f"{file_format} layers", _SILENCE_S) as worker:
        for block in _blocks(paths):
            request = {
                "op": "time_files",
                "paths": [str(path.resolve()) for path in block],
                "format": file_format,
                "threads": threads,
                "rounds": rounds,
                "burst_ms": burst_ms,
            }
            times_ms += worker.ask(request)["times_ms"]
            if progress is not None:
                progress(len(times_ms))
    return times_ms


def _blocks(paths: Sequence[Path]) -> Iterator[list[Path]]:
    block: list[Path] = []
    size_bytes = 0
    for path in paths:
        block.append(path)
        size_bytes += path.stat().st_size
        if len(block) == _BLOCK_FILES or size_bytes >= _BLOCK_BYTES:
            yield block
            block, size_bytes = [], 0
    if block:
        yield block
