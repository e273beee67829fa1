"""How long the stages of a run take."""

from __future__ import annotations

import json
import time
from pathlib import Path


class Clock:
    """Seconds per stage, kept across interruptions.

    Args:
        path: file that keeps them.

    Attributes:
        seconds: that passed, by stage.
        cpu_seconds: of processor time, which other work on the machine disturbs less.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._stage = path, ""
        kept = json.loads(path.read_text()) if path.exists() else {}
        self.seconds: dict[str, float] = kept.get("seconds", {})
        self.cpu_seconds: dict[str, float] = kept.get("cpu_seconds", {})
        self._since = self._now()

    def start(self, stage: str) -> None:
        """Begin a stage; what has not been booked is dropped."""
        self._stage, self._since = stage, self._now()

    def stop(self) -> None:
        """Book what has passed so far; the stage goes on."""
        now = self._now()
        for total, since, until in zip(self._totals(), self._since, now, strict=True):
            total[self._stage] = total.get(self._stage, 0.0) + until - since
        self._since = now
        self._path.parent.mkdir(parents=True, exist_ok=True)
        kept = {"seconds": self.seconds, "cpu_seconds": self.cpu_seconds}
        self._path.write_text(json.dumps(kept))

    def _totals(self) -> tuple[dict[str, float], dict[str, float]]:
        return self.seconds, self.cpu_seconds

    @staticmethod
    def _now() -> tuple[float, float]:
        return time.monotonic(), time.process_time()
