"""Text from elsewhere, as it may be shown."""

from __future__ import annotations


def printable(text: str) -> str:
    """The text, with a question mark for whatever would move a terminal's cursor."""
    return "".join(one if one.isprintable() else "?" for one in text)
