"""Measured layer latencies on disk, so that a table is measured once per machine and runtime.

One JSON file per identity (runtime and version, CPU, threads, format, precision, quantization
rules) in `$XDG_CACHE_HOME/compress-export`, or `~/.cache/compress-export`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from compress_export.whole_files import write_whole

SCHEMA_VERSION = 1


def default_cache_folder() -> Path:
    """Return the folder for this user's measured tables."""
    given = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG specification says that relative paths are to be ignored.
    base = Path(given) if Path(given).is_absolute() else Path.home() / ".cache"
    return base / "compress-export"


class LatencyCache:
    """Milliseconds by name for one identity.

    Args:
        folder: where the file lies.
        identity: what the measurements belong to, as plain JSON.
        say: is told when a file is unreadable and left out of account.

    Attributes:
        path: the file.
        milliseconds: name -> milliseconds of what is known.
        seconds: time that measuring it took, over all runs.
    """

    def __init__(
        self, folder: Path, identity: Mapping[str, Any], say: Callable[[str], None]
    ) -> None:
        text = json.dumps(identity, sort_keys=True)
        self._identity = json.loads(text)  # as it will be read back: no tuples
        digest = hashlib.sha256(text.encode()).hexdigest()
        self.path = folder / f"latency-{digest[:16]}.json"
        self.milliseconds: dict[str, float] = {}
        self.seconds = 0.0
        if self.path.exists():
            try:
                self._read()
            except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
                self.milliseconds, self.seconds = {}, 0.0
                say(f"notice: {self.path} is not readable ({error}); measuring anew")

    def add(self, milliseconds: Mapping[str, float], seconds: float) -> None:
        """Note measurements and the time that they took, and write the file at once.

        A folder that can't be written is no error: the measurements then last for this run.
        """
        self.milliseconds.update(milliseconds)
        self.seconds += seconds
        with contextlib.suppress(OSError):
            self._write()

    def _read(self) -> None:
        content = json.loads(self.path.read_text(encoding="utf-8"))
        if content["schema_version"] != SCHEMA_VERSION or content["identity"] != self._identity:
            raise ValueError("it belongs to something else")
        milliseconds = {str(k): float(v) for k, v in content["milliseconds"].items()}
        if not all(math.isfinite(ms) and ms >= 0 for ms in milliseconds.values()):
            raise ValueError("a latency is negative or not finite")
        self.milliseconds, self.seconds = milliseconds, float(content["seconds"])

    def _write(self) -> None:
        content = {
            "schema_version": SCHEMA_VERSION,
            "identity": self._identity,
            "seconds": self.seconds,
            "milliseconds": self.milliseconds,
        }
        # Whole, so that a run beside this one never reads half a file.
        write_whole(self.path, json.dumps(content, indent=1))
