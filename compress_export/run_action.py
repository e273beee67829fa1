"""One policy for all commands: which ending is which exit code, and what the user reads of it.

A user's mistake is one line on stderr. Anything unexpected is one line too, with the place of
the traceback; it never ends with 1, which a CI gate reads as a missed budget.
"""

import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from compress_export.errors import Terminated, UsageError
from compress_export.exit_codes import ExitCode
from compress_export.launch import by_torchrun, is_first, is_first_here
from compress_export.shortages import shortage

if TYPE_CHECKING:
    from compress_export.options import JobOptions

# Where errors live that are one line and no defect: the user's mistakes, and what is none.
_MISTAKES = (("boards", "BoardError"), ("compressor.errors", "InputError"))
_FAILURES = (("compressor.epochs", "DivergedError"),)
_LOST = (("compressor.ranks", "PeerLostError"),)

_OUTCOMES = {ExitCode.PASSED, ExitCode.BUDGET_MISSED, ExitCode.NOT_MEASURED}

# The job that runs, for the place of an error log; one process runs one job.
_job: "JobOptions | None" = None


def note_job(options: "JobOptions") -> None:
    """Say which job runs from here on, so that an error log lands in its DIR.run."""
    global _job
    _job = options


def run_action(action: Callable[[], int]) -> int:
    """Run `action` and return the exit code for how it ended. Raises nothing."""
    received: list[int] = []
    try:
        with _signals_raise(received):
            code = action()
            sys.stdout.flush()
        return _checked(code)
    except BaseException as error:
        if received or isinstance(error, KeyboardInterrupt):
            return _stopped(received)
        if isinstance(error, BrokenPipeError):
            return _stdout_gone()
        if (mistake := _users_mistake(error)) is not None:
            _say(mistake, is_first_here())
            return ExitCode.USER_MISTAKE
        if _is_one_of(error, _LOST):
            _say(f"{_flat(str(error))}{_way_on()}")
            return ExitCode.TOOL_FAILED
        if isinstance(error.__context__, BrokenPipeError):  # what typer and rich make of it
            return _stdout_gone()
        if (reason := shortage(error)) is not None:
            _say(f"{reason}{_way_on()}")
            return ExitCode.TOOL_FAILED
        if _is_one_of(error, _FAILURES):
            _say(_flat(str(error)))
            return ExitCode.TOOL_FAILED
        return _unexpected(error)


def _stopped(received: Sequence[int]) -> int:
    """Whatever a library made of the exception that the signal raised in it."""
    if signal.SIGTERM in received:
        _say(f"terminated{_way_on()}")
        return ExitCode.TERMINATED
    _say(f"interrupted{_way_on()}")
    return ExitCode.INTERRUPTED


def _way_on() -> str:
    """How to go on, where a job has left something to go on with."""
    from compress_export.outputs import is_unfinished

    if _job is None:
        return ""
    out = _out_folder()
    if out is not None and is_unfinished(out):
        return "; nothing is lost: go on with the same command and --resume"
    return "; it had not got far enough to be resumed"


def _checked(code: int) -> int:
    """Actions answer 0, 1 or 4, or 2 and 130 where the parser ended; the rest is a defect."""
    if code in _OUTCOMES or code in (ExitCode.USER_MISTAKE, ExitCode.INTERRUPTED):
        return code
    if code == ExitCode.TOOL_FAILED:
        return code
    raise RuntimeError(f"a command ended with the unknown code {code}")


def _users_mistake(error: BaseException) -> str | None:
    """The one line for a user's mistake, None for anything else."""
    if _is_parse_error(error):
        return f"{error.format_message()} Try 'compress-export --help'."  # type: ignore[attr-defined]
    if isinstance(error, UsageError) or _is_one_of(error, _MISTAKES):
        return _flat(str(error))
    return None


def _is_parse_error(error: BaseException) -> bool:
    # The parser's exceptions come from click, or from the copy of it inside newer typers.
    return any("click" in base.__module__ for base in type(error).__mro__) and hasattr(
        error, "format_message"
    )


def _is_one_of(error: BaseException, homes: Sequence[tuple[str, str]]) -> bool:
    # An error of a module that was never imported cannot be the one at hand, and importing
    # here could itself fail.
    found = (getattr(sys.modules.get(module), name, None) for module, name in homes)
    return isinstance(error, tuple(kind for kind in found if kind is not None))


def _unexpected(error: BaseException) -> int:
    trace = "".join(traceback.format_exception(error))
    place = f"process {os.environ['RANK']}: " if by_torchrun() else ""
    text = f"{type(error).__name__}: {_flat(str(error))[:500]}"
    _say(f"{place}{text} (traceback in {_write_log(trace)})", True)
    return ExitCode.TOOL_FAILED


def _write_log(trace: str) -> str:
    """Write DIR.run/error.log, or a temporary file where there is no such folder."""
    from compress_export.outputs import run_folder

    try:
        if (out := _out_folder()) is not None and (folder := run_folder(out)).is_dir():
            (folder / "error.log").write_text(trace, encoding="utf-8")
            return str(folder / "error.log")
        descriptor, name = tempfile.mkstemp(prefix="compress-export-", suffix=".log")
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(trace)
        return name
    except Exception:  # whatever keeps the log from being written must not hide the error
        sys.stderr.write(trace)
        return "the lines above"


def _out_folder() -> Path | None:
    """DIR of the job that runs."""
    from compress_export.outputs import default_out

    if _job is None or _job.out is not None:
        return None if _job is None else _job.out
    try:
        from boards import load_board

        return default_out(load_board(_job.board).id)
    except Exception:  # the log's place must not hide the error it is about
        return None


def _stdout_gone() -> int:
    """The reader of a pipe went away: nobody can see the verdict, so it does not count."""
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, sys.stdout.fileno())
    _say("standard output was closed before the end")
    return ExitCode.TOOL_FAILED


def _say(message: str, speaks: bool | None = None) -> None:
    """Write a line; of several processes only the first one does, unless told."""
    if is_first() if speaks is None else speaks:
        sys.stderr.write(f"compress-export: {message}\n")


def _flat(text: str) -> str:
    return " ".join(text.split())


@contextmanager
def _signals_raise(received: list[int]) -> Iterator[None]:
    """SIGTERM and SIGINT raise, also where a shell started us in the background with SIGINT
    ignored, so that folders and locks are given back before the process ends.

    Args:
        received: gets the signals' numbers.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        received.append(number)
        raise KeyboardInterrupt if number == signal.SIGINT else Terminated

    try:
        before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    except ValueError:  # not the main thread: an embedding program owns the signals
        yield
        return
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
