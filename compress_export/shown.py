"""Text from elsewhere, as it may be shown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console


def print_line(console: Console, text: str) -> None:
    """Print one line as it is: no markup, no `:name:` turned into a picture, no wrapping."""
    console.print(text, highlight=False, markup=False, emoji=False, soft_wrap=True)


def printable(text: str) -> str:
    """The text, with a question mark for whatever would move a terminal's cursor."""
    return "".join(one if one.isprintable() else "?" for one in text)


def printable_tree(tree: Any) -> Any:
    """The same for every text of a JSON value, of bounded depth as `read_json` returns it."""
    if isinstance(tree, str):
        return printable(tree)
    if isinstance(tree, list):
        return [printable_tree(one) for one in tree]
    if isinstance(tree, dict):
        return {printable(key): printable_tree(one) for key, one in tree.items()}
    return tree
