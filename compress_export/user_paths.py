"""Paths as users name them: ~ for a home, and places that the system won't let anybody look at."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from compress_export.errors import UsageError


def expanded(path: Path | str) -> Path:
    """Return a path with the home in place of ~.

    Raises:
        UsageError: ~ of a user that this machine doesn't have.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise UsageError(f"{path}: there is no such user here; write the path out") from None


@contextmanager
def looking_at(option: str, path: Path) -> Iterator[None]:
    """Make one line of an OSError of the block: a folder of another user, a name that is too long.

    Raises:
        UsageError: it names option and path.
    """
    try:
        yield
    except OSError as error:
        raise UsageError(f"{option} {path}: cannot be looked at ({error.strerror})") from None


def refuse_unreachable(option: str, path: Path | None) -> None:
    """Refuse a path that can't be looked at; what is missing is for others to explain.

    Raises:
        UsageError: it names option and path.
    """
    if path is not None:
        with looking_at(option, path), suppress(FileNotFoundError, NotADirectoryError):
            path.stat()


def refuse_no_place(option: str, path: Path | None) -> None:
    """Refuse what can't become a file to write: before long work, not after it.

    Raises:
        UsageError: it names option and path.
    """
    if path is None:
        return
    with looking_at(option, path):
        if not path.absolute().parent.is_dir():
            raise UsageError(f"{option} {path}: its folder does not exist")
        if path.is_dir():
            raise UsageError(f"{option} {path}: is a folder; give the name of a file")
