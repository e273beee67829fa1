"""Turns at a file that several processes read, change and replace."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def turn_at(path: Path) -> Iterator[None]:
    """Wait until no other process changes a file, and keep the others waiting meanwhile.

    The file's folder is locked (`flock`): the file itself is replaced by another one, and a lock
    file would be left behind. The kernel ends the lock with the process. Where the folder can't be
    read or its file system has no such locks, there are no turns.
    """
    descriptor = None
    with suppress(OSError):
        descriptor = os.open(path.resolve().parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)
