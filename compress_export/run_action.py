"""One policy for all commands: which ending is which exit code, and what the user reads of it.

A user's mistake is one line on stderr. Anything unexpected is one line too, with the place of
the traceback; it never ends with 1, which a CI gate reads as a missed budget.
"""

import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from compress_export.errors import Terminated, UsageError
from compress_export.exit_codes import ExitCode

if TYPE_CHECKING:
    from compress_export.options import JobOptions

_OUTCOMES = {ExitCode.PASSED, ExitCode.BUDGET_MISSED, ExitCode.NOT_MEASURED}

# The job that runs, for the place of an error log; one process runs one job.
_job: "JobOptions | None" = None


def note_job(options: "JobOptions") -> None:
    """Say which job runs from here on, so that an error log lands in its DIR.run."""
    global _job
    _job = options


def run_action(action: Callable[[], int]) -> int:
    """Run `action` and return the exit code for how it ended. Raises nothing."""
    try:
        with _signals_raise():
            code = action()
            sys.stdout.flush()
        return _checked(code)
    except KeyboardInterrupt:
        _say(f"interrupted{_way_on()}")
        return ExitCode.INTERRUPTED
    except Terminated:
        _say(f"terminated{_way_on()}")
        return ExitCode.TERMINATED
    except BrokenPipeError:
        return _stdout_gone()
    except (Exception, SystemExit) as error:
        if (mistake := _users_mistake(error)) is not None:
            _say(mistake)
            return ExitCode.USER_MISTAKE
        if isinstance(error.__context__, BrokenPipeError):  # what typer and rich make of it
            return _stdout_gone()
        return _unexpected(error)


def _way_on() -> str:
    return "" if _job is None else "; an unfinished run goes on with --resume"


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
    if isinstance(error, _mistake_types()):
        return _flat(str(error))
    return None


def _is_parse_error(error: BaseException) -> bool:
    # The parser's exceptions come from click, or from the copy of it inside newer typers.
    return any("click" in base.__module__ for base in type(error).__mro__) and hasattr(
        error, "format_message"
    )


def _mistake_types() -> tuple[type[Exception], ...]:
    # An error of a module that was never imported cannot be the one at hand, and importing
    # here could itself fail.
    homes = (("boards", "BoardError"), ("compressor.errors", "InputError"))
    found = (getattr(sys.modules.get(module), name, None) for module, name in homes)
    return (UsageError, *(kind for kind in found if kind is not None))


def _unexpected(error: BaseException) -> int:
    trace = "".join(traceback.format_exception(error))
    _say(f"{type(error).__name__}: {_flat(str(error))[:500]} (traceback in {_write_log(trace)})")
    return ExitCode.TOOL_FAILED


def _write_log(trace: str) -> str:
    """Write DIR.run/error.log, or a temporary file where there is no such folder."""
    try:
        if (folder := _run_folder()) is not None and folder.is_dir():
            (folder / "error.log").write_text(trace, encoding="utf-8")
            return str(folder / "error.log")
        descriptor, name = tempfile.mkstemp(prefix="compress-export-", suffix=".log")
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(trace)
        return name
    except OSError:
        sys.stderr.write(trace)
        return "the lines above"


def _run_folder() -> Path | None:
    from compress_export.outputs import default_out, run_folder

    if _job is None:
        return None
    if _job.out is not None:
        return run_folder(_job.out)
    try:
        from boards import load_board

        return run_folder(default_out(load_board(_job.board).id))
    except Exception:  # the log's place must not hide the error it is about
        return None


def _stdout_gone() -> int:
    """The reader of a pipe went away: nobody can see the verdict, so it does not count."""
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, sys.stdout.fileno())
    _say("standard output was closed before the end")
    return ExitCode.TOOL_FAILED


def _say(message: str) -> None:
    sys.stderr.write(f"compress-export: {message}\n")


def _flat(text: str) -> str:
    return " ".join(text.split())


@contextmanager
def _signals_raise() -> Iterator[None]:
    """SIGTERM and SIGINT raise, also where a shell started us in the background with SIGINT
    ignored, so that folders and locks are given back before the process ends."""

    def terminate(number: int, frame: FrameType | None) -> None:
        raise Terminated

    wanted: dict[int, Any] = {
        signal.SIGTERM: terminate,
        signal.SIGINT: signal.default_int_handler,
    }
    try:
        before = {number: signal.signal(number, handler) for number, handler in wanted.items()}
    except ValueError:  # not the main thread: an embedding program owns the signals
        yield
        return
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
