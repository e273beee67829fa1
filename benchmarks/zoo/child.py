"""Run a command under a time and a memory limit, and keep the lines that it printed."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from runtime_bench.memory import parse_status

MIB = 2**20
POLL_S = 0.2
LAST_WORDS = 300


@dataclass(frozen=True)
class Outcome:
    """What a command left.

    Attributes:
        lines: of its stdout.
        failure: why it did not end by itself with 0, or None; the last of its stderr where it
            crashed.
        peak_bytes: largest resident set that was seen.
    """

    lines: tuple[str, ...]
    failure: str | None
    peak_bytes: int


def run_limited(command: Sequence[str], *, time_limit_s: float, memory_limit_mib: int) -> Outcome:
    """Run a command to its end or to its limit, whichever comes first.

    The resident set is polled and the process stopped by its group: RLIMIT_AS would count address
    space, of which torch and XLA reserve far more than they use.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True
        )
        try:
            failure, peak_bytes = _watch(child, time_limit_s, memory_limit_mib * MIB)
        finally:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode(errors="replace"))
    if failure is None and child.returncode != 0:
        code = child.returncode
        ended = f"ended by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"
        failure = f"{ended}; its last words: {' '.join(texts[1].split())[-LAST_WORDS:]}"
    return Outcome(tuple(texts[0].splitlines()), failure, peak_bytes)


def _watch(
    child: subprocess.Popen[bytes], time_limit_s: float, limit_bytes: int
) -> tuple[str | None, int]:
    start, peak_bytes = time.monotonic(), 0
    while child.poll() is None:
        peak_bytes = max(peak_bytes, _rss_bytes(child.pid))
        if peak_bytes > limit_bytes:
            return f"stopped: took more than {limit_bytes // MIB} MiB", peak_bytes
        if time.monotonic() - start > time_limit_s:
            return f"stopped: took more than {time_limit_s:.0f} s", peak_bytes
        time.sleep(POLL_S)
    return None, peak_bytes


def _rss_bytes(process: int) -> int:
    try:
        text = Path(f"/proc/{process}/status").read_text(encoding="ascii", errors="replace")
    except OSError:  # it has just ended
        return 0
    return parse_status(text).get("VmRSS", 0)
