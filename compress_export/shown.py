"""Text from elsewhere, as it may be shown."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console


_NOT_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def print_line(console: Console, text: str) -> None:
    """Print one line as it is: no markup, no `:name:` turned into a picture, no wrapping."""
    console.print(text, highlight=False, markup=False, emoji=False, soft_wrap=True)


def printable(text: str) -> str:
    """The text, with a question mark for whatever would move a terminal's cursor."""
    return "".join(one if one.isprintable() else "?" for one in text)


def drawable(text: str) -> str:
    """The text, with a question mark for whatever an SVG picture can't hold, as XML can't.

    Joiners of letters, which no terminal prints, stay.
    """
    return _NOT_IN_XML.sub("?", text)


def printable_tree(tree: Any, each: Callable[[str], str] = printable) -> Any:
    """The same for every text of a JSON value, of bounded depth as `read_json` returns it."""
    if isinstance(tree, str):
        return each(tree)
    if isinstance(tree, list):
        return [printable_tree(one, each) for one in tree]
    if isinstance(tree, dict):
        return {each(key): printable_tree(one, each) for key, one in tree.items()}
    return tree
