"""Time many model files, such as one layer at many widths, in a process of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from runtime_bench.bursts import Burst
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
    """Return milliseconds of one run of every file, in order: the smallest median of its bursts.

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
            files = _ask(worker, block, file_format, threads, rounds, burst_ms)
            times_ms += [min(burst.median_ms for burst in bursts) for bursts in files]
            if progress is not None:
                progress(len(times_ms))
    return times_ms


def time_side_by_side(
    paths: Sequence[Path], file_format: str, *, threads: int, rounds: int, burst_ms: float
) -> list[list[Burst]]:
    """Return every file's bursts, in order; all files stay loaded and are timed in turns.

    Args:
        paths: files of one format; a free dimension of an input counts as 1.
        threads: of one operator.
        rounds: bursts of each file; those of one round can be compared.
        burst_ms: about how long one burst lasts.

    Raises:
        RuntimeMissingError: no runtime for the format.
        BenchError: a file can't be loaded or run.
    """
    with WorkerProcess(f"{file_format} files", _SILENCE_S) as worker:
        return _ask(worker, paths, file_format, threads, rounds, burst_ms)


def _ask(
    worker: WorkerProcess,
    paths: Sequence[Path],
    file_format: str,
    threads: int,
    rounds: int,
    burst_ms: float,
) -> list[list[Burst]]:
    request = {
        "op": "time_files",
        "paths": [str(path.resolve()) for path in paths],
        "format": file_format,
        "threads": threads,
        "rounds": rounds,
        "burst_ms": burst_ms,
    }
    return [[Burst(*burst) for burst in bursts] for bursts in worker.ask(request)["bursts"]]


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
