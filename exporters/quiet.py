"""Keep the conversion tools from writing to the terminal, and keep what they said for errors."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from functools import cache
from typing import TextIO

from exporters.errors import ExportError

LOG_LINES_IN_MESSAGE = 3


@contextmanager
def quiet_step(step: str) -> Iterator[None]:
    """Run a step with stdout and stderr captured; turn any exception into an ExportError.

    The capture is on file descriptors, since much of the noise comes from C++. Python's streams
    become streams on the descriptors that are never closed: a tool may make a log handler on
    them that outlives us. Log records are dropped, whatever their handlers write to.

    Raises:
        ExportError: with the step's name, the cause, and the tool's last lines.
    """
    root = logging.getLogger()
    handlers = list(root.handlers)
    root.addHandler(logging.NullHandler())  # or logging.warning() would install a handler
    disabled = root.manager.disable
    logging.disable(logging.CRITICAL)
    with tempfile.TemporaryFile() as sink, _captured(sink.fileno()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except ExportError:
            raise
        except Exception as error:
            _flush()
            sink.seek(0)
            log = sink.read().decode(errors="replace")
            raise ExportError(_message(step, error, log), log=log) from error
        finally:
            root.handlers[:] = handlers
            logging.disable(disabled)


@contextmanager
def _captured(sink_fd: int) -> Iterator[None]:
    """Point file descriptors 1 and 2 at `sink_fd` for the duration."""
    _flush()
    saved = [os.dup(1), os.dup(2)]
    out, err = _descriptor_streams()
    try:
        os.dup2(sink_fd, 1)
        os.dup2(sink_fd, 2)
        with redirect_stdout(out), redirect_stderr(err):
            yield
            _flush()
    finally:
        _flush()
        for fd, copy in zip((1, 2), saved, strict=True):
            os.dup2(copy, fd)
            os.close(copy)


@cache
def _descriptor_streams() -> tuple[TextIO, TextIO]:
    """Text streams on descriptors 1 and 2, wherever those point at the time of writing."""
    out, err = (os.fdopen(fd, "w", buffering=1, closefd=False) for fd in (1, 2))
    return out, err


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        if stream is not None and not stream.closed:
            stream.flush()


def _message(step: str, error: Exception, log: str) -> str:
    cause = " ".join(str(error).split())[:300] or type(error).__name__
    tail = " / ".join(line.strip() for line in log.strip().splitlines()[-LOG_LINES_IN_MESSAGE:])
    said = f"; the tool's last words: {tail[:300]}" if tail else ""
    return f"{step} failed: {cause} ({type(error).__name__}){said}"
