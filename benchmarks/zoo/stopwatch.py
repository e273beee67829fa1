"""Seconds of a stage, by the clock and of the processor."""

from __future__ import annotations

import time


class Stopwatch:
    """Starts when it is made.

    Other work on the machine stretches wall time, and hardly changes the processor time that this
    process took, all its threads together.
    """

    def __init__(self) -> None:
        self._wall_s, self._cpu_s = time.perf_counter(), time.process_time()

    def fields(self, stage: str) -> dict[str, float]:
        """{STAGE_s: wall seconds since the start, STAGE_cpu_s: processor seconds since then}."""
        wall_s, cpu_s = time.perf_counter() - self._wall_s, time.process_time() - self._cpu_s
        return {f"{stage}_s": round(wall_s, 3), f"{stage}_cpu_s": round(cpu_s, 3)}
