"""Text files that are there whole or not at all."""

from __future__ import annotations

from pathlib import Path

from compressor.whole_files import whole_file


def write_whole(path: Path, text: str) -> Path:
    """Write a text file, in UTF-8, by way of `whole_file`.

    Returns:
        The path.
    """
    with whole_file(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")
    return path
