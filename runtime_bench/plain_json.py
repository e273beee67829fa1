"""JSON from elsewhere, bounded: in bytes, in depth and in the size of its numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

MOST_BYTES = 16 * 2**20
MOST_DEPTH = 32
_MOST_INTEGER = 2**63 - 1


def read_json(path: Path) -> Any:
    """Return what a file holds.

    Raises:
        OSError: it can't be read.
        ValueError: no JSON in UTF-8, or more than the bounds of this module.
    """
    with Path(path).open("rb") as file:
        return parse_json(file.read(MOST_BYTES + 1))


def parse_json(content: bytes) -> Any:
    """Return what a text holds; ValueError as `read_json` raises it."""
    if len(content) > MOST_BYTES:
        raise ValueError(f"more than {MOST_BYTES // 2**20} MiB")
    try:
        value = json.loads(content.decode("utf-8"), parse_int=_integer)
    except RecursionError:
        raise ValueError("nested too deep") from None
    _check(value)
    return value


def _integer(text: str) -> int:
    # float() of a longer one overflows, and its text is refused by Python itself.
    if len(text) > 20 or abs(int(text)) > _MOST_INTEGER:
        raise ValueError("a whole number of more than 64 bits")
    return int(text)


def _check(value: Any) -> None:
    """Raise ValueError for what is nested too deep, or for text that UTF-8 can't hold."""
    level = [value]
    for _ in range(MOST_DEPTH):
        below = []
        for one in level:
            if isinstance(one, str):
                one.encode("utf-8")
            elif isinstance(one, list):
                below += one
            elif isinstance(one, dict):
                below += [*one.keys(), *one.values()]
        if not below:
            return
        level = below
    raise ValueError(f"nested deeper than {MOST_DEPTH}")
