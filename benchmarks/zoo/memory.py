"""Peak memory of a part of this process."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from runtime_bench.memory import peak_rss_bytes, rss_bytes

Result = TypeVar("Result")


def with_peak(work: Callable[[], Result]) -> tuple[Result, int | None]:
    """Do something; return its result and by how many bytes the resident set grew meanwhile.

    What was allocated before (the weights) isn't counted. None where the kernel doesn't say.
    """
    gc.collect()
    with contextlib.suppress(OSError):
        # Writing 5 sets the high-water mark to the present size (proc_pid_clear_refs(5)).
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before = rss_bytes()
    result = work()
    peak = peak_rss_bytes()
    return result, None if before is None or peak is None else max(0, peak - before)
