"""Finds a board by name, file name or path, and reads it.

Lookup order of :func:`load_board`:

1. a path: anything with a separator in it (``./my.yaml``, ``boards/my.yaml``), and anything else
   that is an existing file in the working folder;
2. a board shipped with this package, by id, then by alias, in any case, with or without
   ``.yaml`` or ``.yml``.
"""

from __future__ import annotations

import difflib
import os
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import yaml

from boards.mistakes import BoardError, find_mistakes
from boards.schema import Board
from boards.strict_yaml import read_yaml

SUFFIXES = (".yaml", ".yml")


def load_board(name_or_path: str | Path) -> Board:
    """Reads a board descriptor.

    Args:
        name_or_path: ``"jetson"``, ``"jetson.yaml"`` or ``"path/to/mine.yaml"``; see the module's
            docstring for the order in which these are tried.

    Raises:
        BoardError: no such board or file, or a descriptor with mistakes; all of them are in the
            one message.
    """
    text = str(name_or_path)
    try:
        path = Path(text).expanduser()
        is_path = _has_separator(text) or path.is_file()
    except (OSError, RuntimeError) as error:  # a name that is too long, ~ of nobody
        reason = getattr(error, "strerror", None) or "there is no such user here"
        raise BoardError(f"board {text}: cannot be looked at ({reason})") from None
    if is_path:
        return _read(path, text)
    shipped = _find_shipped(text)
    if shipped is None:
        raise BoardError(_unknown_board(text))
    return _read(shipped, shipped.name)


def shipped_boards() -> tuple[str, ...]:
    """Ids of the boards shipped with this package, sorted."""
    names = (entry.name for entry in _package().iterdir())
    return tuple(sorted(name.removesuffix(".yaml") for name in names if name.endswith(".yaml")))


def _package() -> Traversable:
    return resources.files("boards")


def _has_separator(text: str) -> bool:
    return any(sep in text for sep in (os.sep, os.altsep) if sep)


def _find_shipped(text: str) -> Traversable | None:
    name = _bare(text)
    board_id = name if name in shipped_boards() else _aliases().get(name)
    return None if board_id is None else _package() / f"{board_id}.yaml"


def _bare(text: str) -> str:
    name = text.lower()
    for suffix in SUFFIXES:
        name = name.removesuffix(suffix)
    return name


@cache
def _aliases() -> dict[str, str]:
    """Alias to id over all shipped boards."""
    found = {}
    for board_id in shipped_boards():
        board = _read(_package() / f"{board_id}.yaml", board_id)
        found.update(dict.fromkeys(board.aliases, board_id))
    return found


def _unknown_board(text: str) -> str:
    names = shipped_boards()
    close = difflib.get_close_matches(_bare(text), [*names, *_aliases()], n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    return (
        f"no board {text!r}: it is neither a file nor a shipped board; {hint}"
        f"shipped boards: {', '.join(names)}; for a descriptor of your own give its path"
    )


def _read(source: Path | Traversable, label: str) -> Board:
    """Reads and checks one file; ``label`` names it in messages."""
    data = _parse(source, label)
    mistakes = find_mistakes(data)
    if len(mistakes) == 1:
        raise BoardError(f"{label}: {mistakes[0]}")
    if mistakes:
        listed = "; ".join(f"({i}) {text}" for i, text in enumerate(mistakes, start=1))
        raise BoardError(f"{label}: {len(mistakes)} mistakes: {listed}")
    return Board.model_validate(data)


def _parse(source: Path | Traversable, label: str) -> dict[str, Any]:
    try:
        data = read_yaml(source.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BoardError(
            f"{label}: no such file; shipped boards need no path: {', '.join(shipped_boards())}"
        ) from None
    except IsADirectoryError:
        raise BoardError(f"{label} is a folder; give the path of a .yaml file") from None
    except OSError as error:
        raise BoardError(f"{label}: can't be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise BoardError(f"{label}: not UTF-8 text (byte {error.start}); is it YAML?") from None
    except yaml.YAMLError as error:
        raise BoardError(f"{label}: not valid YAML{_position(error)}") from None
    if not isinstance(data, dict):
        found = "is empty" if data is None else f"holds a {type(data).__name__}"
        raise BoardError(f"{label}: {found}; a descriptor is a mapping of keys such as id: mine")
    return data


def _position(error: yaml.YAMLError) -> str:
    """`` at line 3, column 5: mapping values are not allowed here``."""
    if not isinstance(error, yaml.MarkedYAMLError):
        return f": {' '.join(str(error).split())}"
    mark = error.problem_mark or error.context_mark
    place = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
    return f"{place}: {' '.join((error.problem or error.context or 'unknown problem').split())}"
