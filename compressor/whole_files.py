"""Files that are there whole or not at all, whenever the process or the machine stops."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

UNFINISHED_SUFFIX = ".part"
"""Of files that are being written; one that outlived its process is of no use to anybody."""


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield the place to write a file to; one rename puts it at `path` once it is on the disk.

    It lies in the same folder, which is made where it is missing. Where the block fails, `path` is
    what it was before. A link is followed; a device or a pipe is written to as it is.

    Raises:
        OSError: from the block or from here, with the name of the file where it had none.
    """
    if path.parts[:2] == ("/", "dev") or (path.exists() and not path.is_file()):
        yield path
        return
    path = path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    # The process's number keeps two that write the same file apart (caches have no lock).
    unfinished = path.with_name(f"{path.name}.{os.getpid()}{UNFINISHED_SUFFIX}")
    try:
        yield unfinished
        sync(unfinished)
        unfinished.replace(path)
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        unfinished.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Bring a file, or the names in a folder, onto the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
