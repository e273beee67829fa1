"""A job in a process of its own that can be stopped at a moment drawn beforehand.

The process is forked from one that has imported everything, which saves most of a small job's time.
To the files it makes no difference: it is another process, with its own number and lock.
"""

from __future__ import annotations

import importlib
import mmap
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

_HEAVY = (
    "torch.utils.tensorboard", "torchvision", "sklearn.datasets", "onnx", "onnxruntime",
    "onnxruntime.quantization", "onnxsim", "litert_torch", "ai_edge_quantizer",
    "matplotlib.figure", "compress_export.pipeline", "compress_export.exporting", "exporters",
    "compress_export.html_report",
)  # fmt: skip
_NAME_BYTES = 64
_HUNG_AFTER_S = 1800.0


@dataclass(frozen=True)
class Moment:
    """When a signal is sent.

    Attributes:
        number: the signal.
        stage: of the job; "" for any.
        after_s: so many seconds after the stage began,
        operation: or right before so many operations on files of the job, counted from 1.
    """

    number: signal.Signals
    stage: str = ""
    after_s: float = 0.0
    operation: int | None = None


@dataclass
class Ended:
    """How a process ended.

    Attributes:
        code: exit code, negative for a signal that killed it.
        stage: that it was in when the signal was sent, or at its end.
        signalled: whether the signal was sent before it ended by itself.
        said, complained: standard output and error.
        stages: seconds spent in each stage.
        operations: on files of the job.
        hung: it was not through after half an hour, and SIGTERM was sent.
    """

    code: int
    stage: str
    signalled: bool
    said: str
    complained: str
    stages: dict[str, float] = field(default_factory=dict)
    operations: int = 0
    hung: bool = False


def prepare() -> None:
    """Import what a job imports; nothing that starts threads."""
    for name in _HEAVY:
        importlib.import_module(name)


def run(
    arguments: list[str],
    folder: Path,
    moment: Moment | None = None,
    before: Callable[[], None] = lambda: None,
) -> Ended:
    """Run the command line and send a signal at a moment, if it is still running then.

    Args:
        folder: operations on files below it count; standard output and error go there.
        before: called in the new process first, to set limits.
    """
    folder.mkdir(parents=True, exist_ok=True)
    board = mmap.mmap(-1, 2 * _NAME_BYTES)  # shared: the stage, and the number of operations
    said, complained = folder / "said.txt", folder / "complained.txt"
    child = os.fork()
    if child == 0:
        _become_victim(arguments, folder, moment, before, board, (said, complained))
    stages: dict[str, float] = {}
    signalled = hung = False
    give_up = time.monotonic() + _HUNG_AFTER_S
    status = 0
    while True:
        pid, status = os.waitpid(child, os.WNOHANG)
        stage = _text(board, 0)
        if pid:
            break
        stages.setdefault(stage, time.monotonic())
        if moment is not None and moment.operation is None and not signalled:
            start = min(stages.values()) if not moment.stage else stages.get(moment.stage)
            if start is not None and time.monotonic() >= start + moment.after_s:
                os.kill(child, moment.number)
                signalled, struck = True, stage
        if not hung and time.monotonic() > give_up:
            os.kill(child, signal.SIGTERM)
            hung = True
        time.sleep(0.002)
    count = int(_text(board, _NAME_BYTES) or 0)
    if moment is not None and moment.operation is not None:
        signalled, struck = count >= moment.operation, stage
    return Ended(
        os.waitstatus_to_exitcode(status),
        struck if signalled else stage,
        signalled,
        said.read_text(encoding="utf-8", errors="replace"),
        complained.read_text(encoding="utf-8", errors="replace"),
        _durations(stages),
        count,
        hung,
    )


def _durations(starts: dict[str, float]) -> dict[str, float]:
    times = [*starts.values(), time.monotonic()]
    return {name: times[i + 1] - times[i] for i, name in enumerate(starts)}


def _become_victim(
    arguments: list[str],
    folder: Path,
    moment: Moment | None,
    before: Callable[[], None],
    board: mmap.mmap,
    outputs: tuple[Path, Path],
) -> None:
    """Run the command line in this process, which ends with it."""
    code = 70
    try:
        for number, path in zip((1, 2), outputs, strict=True):
            opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(opened, number)
            os.close(opened)
        _tell_stages(board)
        _count_operations(folder, moment, board)
        before()
        from compress_export.cli import main

        code = main(arguments)
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _tell_stages(board: mmap.mmap) -> None:
    """Let every timed stage of a job write its name; what comes after one is called so."""
    from compress_export.progress import RunLog

    timed = RunLog.timed

    @contextmanager
    def telling(log: RunLog, name: str) -> Iterator[None]:
        _write(board, 0, name)
        with timed(log, name):
            yield
        _write(board, 0, f"after {name}")

    RunLog.timed = telling  # type: ignore[assignment, method-assign]
    _write(board, 0, "start")


def _count_operations(folder: Path, moment: Moment | None, board: mmap.mmap) -> None:
    """Count what the process does to files below a folder; strike where the moment says so."""
    root, count = str(folder), 0

    def hook(event: str, words: tuple[object, ...]) -> None:
        nonlocal count
        if event not in ("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir"):
            return
        if not str(words[0]).startswith(root) or (event == "open" and words[1] in ("r", "rb")):
            return
        count += 1
        _write(board, _NAME_BYTES, str(count))
        if moment is not None and moment.operation == count:
            os.kill(os.getpid(), moment.number)

    sys.addaudithook(hook)


def _write(board: mmap.mmap, at: int, text: str) -> None:
    board[at : at + _NAME_BYTES] = text.encode()[:_NAME_BYTES].ljust(_NAME_BYTES, b"\0")


def _text(board: mmap.mmap, at: int) -> str:
    return board[at : at + _NAME_BYTES].rstrip(b"\0").decode(errors="replace")
