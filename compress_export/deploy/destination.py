"""Where to: user@host:/path, as scp writes it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from compress_export.errors import UsageError

_FORM = re.compile(
    r"(?P<user>[A-Za-z0-9_.+\\-]+@)?(\[(?P<ipv6>[0-9A-Fa-f:.]+(%\w+)?)\]|(?P<name>[A-Za-z0-9_.-]+))"
    r":(?P<path>(?!:).*)",
    re.DOTALL,
)


@dataclass(frozen=True)
class Destination:
    """A folder on a device.

    Attributes:
        text: as the user wrote it.
        host: what ssh is given: a host or an alias of the user's configuration, with or without
            a user.
        path: absolute, or relative to the user's home there, then beginning with "./".
    """

    text: str
    host: str
    path: str

    @classmethod
    def parse(cls, text: str) -> Destination:
        """Read `user@host:/path`; an IPv6 address stands in brackets.

        Raises:
            UsageError: another form, or a path that isn't one folder's.
        """
        found = _FORM.fullmatch(text)
        if found is None or text.startswith("-"):
            raise UsageError(
                f"{text!r} is no destination: give user@host:/path, with the host's name, address "
                "or alias of your ssh configuration"
            )
        host = (found["user"] or "") + (found["ipv6"] or found["name"])
        if found["name"] and found["name"].startswith("-"):
            raise UsageError(f"{text!r}: a host's name can't begin with a dash")
        return cls(text, host, _folder(found["path"], text))


def remote_path(path: str, text: str) -> str:
    """Return a path for the device as the shell there takes it without a second meaning.

    Raises:
        UsageError: line breaks or other control characters, or `~user`.
    """
    if any(ord(character) < 32 or ord(character) == 127 for character in path):
        raise UsageError(f"{text!r}: the path holds a control character")
    path = path.removeprefix("~/")
    if path.startswith("~"):
        raise UsageError(f"{text!r}: ~ stands for the home folder only in ~/; write out the path")
    return path if path.startswith("/") else f"./{path}"


def _folder(path: str, text: str) -> str:
    folder = remote_path(path, text).rstrip("/")
    if folder in ("", ".") or folder.endswith(("/.", "/..")):
        raise UsageError(
            f"{text!r}: name a folder of its own for the bundle, such as /opt/model or models/cats"
        )
    return folder
