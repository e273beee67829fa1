"""What a parser must not do while it reads a file: write elsewhere, start something, take long."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

CPU_SECONDS = 5.0
_FORBIDDEN = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "socket.connect",
              "pickle.find_class", "shutil.rmtree")  # fmt: skip
_WRITING = ("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.chmod",
            "os.truncate")  # fmt: skip


class TooLong(BaseException):
    """An input took more than CPU_SECONDS of this process; no handler of errors swallows it."""


class Watch:
    """Notes what happens while it is armed.

    Attributes:
        seen: forbidden events since it was armed, as text.
        grown_bytes: what it added to the peak of the resident set.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = str(folder.resolve())
        self._armed = False
        self.seen: list[str] = []
        self.grown_bytes = 0
        sys.addaudithook(self._hook)
        signal.signal(signal.SIGPROF, _too_long)

    @contextlib.contextmanager
    def armed(self) -> Iterator[None]:
        """Watch the block; `TooLong` is raised in it when its time is over."""
        before = _peak_bytes()
        self.seen, self._armed = [], True
        signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            self._armed = False
            self.grown_bytes = _peak_bytes() - before

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self._armed:
            return
        if event in _FORBIDDEN:
            self.seen.append(f"{event} {arguments[:2]!r:.200}")
        elif event == "open" and _writes(arguments) or event in _WRITING:
            place = arguments[0]
            if isinstance(place, str | bytes | Path) and not self._inside(os.fsdecode(place)):
                self.seen.append(f"{event} {place!r:.200}")

    def _inside(self, place: str) -> bool:
        return os.path.realpath(place).startswith(self._folder) or place == os.devnull


def _writes(arguments: tuple[Any, ...]) -> bool:
    _, mode, flags = arguments
    if isinstance(mode, str):
        return any(letter in mode for letter in "wax+")
    return bool((flags or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _too_long(number: int, frame: FrameType | None) -> None:
    raise TooLong
