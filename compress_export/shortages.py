"""A full disk and a full memory, whatever library they were noticed in."""

from __future__ import annotations

import errno
from collections.abc import Iterator

_DISK = "the disk is full"
_MEMORY = "out of memory"
_KINDS = {
    errno.ENOSPC: _DISK,
    errno.EDQUOT: _DISK,
    errno.EFBIG: _DISK,  # a limit on the size of files
    errno.ENOMEM: _MEMORY,
}
# What is left of it in the message of an error of the library's own.
_TRACES = {
    "no space left on device": _DISK,
    "disk quota exceeded": _DISK,
    "cannot allocate memory": _MEMORY,
    "can't allocate memory": _MEMORY,
    "out of memory": _MEMORY,
    "bad_alloc": _MEMORY,
    "failed to map segment": _MEMORY,  # of a library that is loaded late
    "bad allocation": _MEMORY,
}


def shortage(error: BaseException) -> str | None:
    """Say what has run out, in one phrase; None where the error is about something else."""
    for one in _chain(error):
        if isinstance(one, OSError) and one.errno in _KINDS:
            name = "" if one.filename is None else f", writing {one.filename}"
            return f"{_KINDS[one.errno]}{name}"
        if isinstance(one, MemoryError):
            return _MEMORY
        text = str(one).lower()
        for trace, kind in _TRACES.items():
            if trace in text:
                return kind
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error, what it was raised from, and so on."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
