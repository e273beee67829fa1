"""Files that are there whole or not at all, whenever the process ends."""

from __future__ import annotations

from pathlib import Path


def write_whole(path: Path, text: str) -> Path:
    """Write a text file by way of a temporary one beside it, which one rename puts in its place.

    Returns:
        The path.
    """
    unfinished = path.with_name(f"{path.name}.part")
    unfinished.write_text(text, encoding="utf-8")
    return unfinished.replace(path)
