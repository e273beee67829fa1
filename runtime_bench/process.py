"""A measuring process seen from outside: questions with a time limit, crashes with a reason."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from runtime_bench.errors import BenchError, RuntimeMissingError

_PACKAGE_ROOT = Path(__file__).resolve().parent.parent  # a folder, or an archive such as bench.pyz
# Modules come from there alone, and never from the folder that the user happens to be in.
_START = (
    "import sys; sys.path[0] = sys.argv.pop(1); "
    "from runtime_bench.worker import main; sys.exit(main())"
)
_CLOSE_SECONDS = 5.0


class WorkerProcess:
    """A fresh Python that runs `worker.main`; use as a context manager.

    Args:
        label: the model file's name, for messages.
        silence_s: the longest wait for the next line of an answer, in seconds.
        command: program and arguments, for tests.
    """

    def __init__(self, label: str, silence_s: float, command: list[str] | None = None) -> None:
        self.label = label
        self._silence_s = silence_s
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed in close()
        self._process = subprocess.Popen(
            command or [sys.executable, "-c", _START, str(_PACKAGE_ROOT)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=_environment(),
            encoding="utf-8",
        )
        self._lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def ask(
        self, request: dict[str, Any], progress: Callable[[int], None] | None = None
    ) -> dict[str, Any]:
        """Send a request and wait for its answer; `progress` gets the samples done so far.

        Raises:
            RuntimeMissingError: no runtime for this file's format.
            BenchError: the process failed, crashed, or was silent for longer than `silence_s`.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except OSError as error:
            raise self._crash() from error
        while True:
            answer = self._next(request["op"])
            if "done" not in answer:
                break
            if progress is not None:
                progress(answer["done"])
        if "error" in answer:
            if answer["missing_runtime"]:
                raise RuntimeMissingError(answer["error"])
            raise BenchError(f"{self.label}: {answer['error']}")
        return answer

    def close(self) -> None:
        """End the process: politely by closing its stdin, then by force."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.close()
        except OSError:
            self._process.kill()
        try:
            self._process.wait(_CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._errors.close()

    def __enter__(self) -> WorkerProcess:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            self._process.kill()  # it may be busy: nobody waits for its answer any more
        self.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as stream:
            for line in stream:
                self._lines.put(line)
        self._lines.put(None)

    def _next(self, op: str) -> dict[str, Any]:
        try:
            line = self._lines.get(timeout=self._silence_s)
        except queue.Empty:
            self._process.kill()
            raise BenchError(
                f"{self.label}: no answer to '{op}' within {self._silence_s:g} s; "
                f"last line of its error output: {self._last_error_line()}"
            ) from None
        if line is None:
            raise self._crash()
        try:
            answer: dict[str, Any] = json.loads(line)
        except ValueError as error:
            raise BenchError(f"{self.label}: unreadable answer {line[:80]!r}") from error
        return answer

    def _crash(self) -> BenchError:
        try:
            code = self._process.wait(_CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        return BenchError(
            f"{self.label}: the measuring process ended with {_ending(code)}; "
            f"last line of its error output: {self._last_error_line()}"
        )

    def _last_error_line(self) -> str:
        self._errors.seek(0)
        lines = self._errors.read().decode("utf-8", errors="replace").splitlines()
        return next((line.strip() for line in reversed(lines) if line.strip()), "(none)")


def _environment() -> dict[str, str]:
    # numpy's BLAS starts a thread per core at import; their buffers would count as the model's.
    return {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


def _ending(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"{name} (often: out of memory)" if name == "SIGKILL" else name
