"""A CSV file that lists images: the columns `path` and `label`, and `split` where it is known."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compress_export.data.raw import Part, RawData, RawSet, from_parts, number_classes
from compressor.errors import InputError

SUFFIXES = frozenset({".csv", ".tsv"})
_MOST_BYTES = 2**28
_MOST_DIGITS = 19  # of a class number; int64 holds any shorter one
_DELIMITERS = ",;\t"  # spreadsheets write a semicolon where the comma is the decimal point
_SPLITS: dict[str, Part] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}


@dataclass(frozen=True)
class _Row:
    line: int
    path: Path
    label: str
    part: Part


def open_list(path: Path, seed: int) -> RawData:
    """Read a list; nothing is decoded.

    The first line names the columns, in any order; others are ignored. Relative paths start at the
    list's own folder. Labels are names, or class numbers where all are integers. The splits are
    `train`, `val` and `test`, and go together as in `raw.from_parts`.

    Raises:
        InputError: no such columns, incomplete lines, files that are not there or listed twice.
    """
    rows = _read_rows(path)
    _refuse_missing(path, rows)
    _refuse_repeated(path, rows)
    classes, labels = number_classes(str(path), _as_labels([row.label for row in rows]))
    parts: dict[Part, RawSet] = {}
    for part in dict.fromkeys(row.part for row in rows):
        members = [i for i, row in enumerate(rows) if row.part == part]
        parts[part] = RawSet([rows[i].path for i in members], labels[members])
    if "whole" not in parts and not ("train" in parts and len(parts) > 1):
        raise InputError(
            f"data {path}: the column split says only {', '.join(parts)}; train and test are "
            "needed; without the column, a fifth of each class is put aside for testing"
        )
    return from_parts(str(path), parts, classes, seed, name=path.stem, kind="the list")


def _read_rows(path: Path) -> list[_Row]:
    stream = io.StringIO(_text(path), newline="")
    columns, delimiter = _header(path, stream.readline())
    reader = csv.reader(stream, delimiter=delimiter, strict=True)
    rows = []
    try:
        for fields in reader:
            where = f"data {path}, line {reader.line_num + 1}"  # the header is line 1
            if len(fields) not in (0, len(columns)):
                raise InputError(
                    f"{where}: {len(fields)} fields, but the header has {len(columns)}; a path "
                    "with the delimiter in it needs quotes"
                )
            if any(fields):
                values = dict(zip(columns, fields, strict=True))
                rows.append(_row(path, reader.line_num + 1, where, values))
    except csv.Error as error:
        raise InputError(f"data {path}, line {reader.line_num + 1}: {error}") from error
    if not rows:
        raise InputError(f"data {path}: there are no lines below the header")
    return rows


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
        if len(content) > _MOST_BYTES:
            raise InputError(f"data {path}: more than {_MOST_BYTES // 2**20} MiB; is it a list?")
        return content.decode("utf-8-sig")  # spreadsheets put a byte-order mark in front
    except UnicodeDecodeError as error:
        raise InputError(f"data {path}: not UTF-8 text; save the list as UTF-8") from error
    except OSError as error:
        raise InputError(f"data {path}: can't be read ({error.strerror})") from error


def _header(path: Path, line: str) -> tuple[list[str], str]:
    """Names of the columns, and the first delimiter that finds `path` and `label` among them."""
    for delimiter in _DELIMITERS:
        names = [name.strip().lower() for name in line.strip().split(delimiter)]
        columns = [name.strip('"') for name in names]
        if {"path", "label"} <= set(columns):
            return columns, delimiter
    raise InputError(
        f"data {path}: the first line has to name the columns path and label, with commas, "
        f"semicolons or tabs between; it is {line.strip()[:60]!r}"
    )


def _row(path: Path, line: int, where: str, values: dict[str, str]) -> _Row:
    file, label = values["path"].strip(), values["label"].strip()
    if not file or not label:
        raise InputError(f"{where}: the {'label' if file else 'path'} is missing")
    part: Part = "whole"
    if "split" in values:
        split = values["split"].strip().lower()
        if split not in _SPLITS:
            raise InputError(f"{where}: split {values['split']!r} is not train, val or test")
        part = _SPLITS[split]
    return _Row(line, path.parent / file, label, part)


def _refuse_missing(path: Path, rows: Sequence[_Row]) -> None:
    missing = [row for row in rows if not _is_file(row.path)]
    if missing:
        first = missing[0]
        hint = "; write folders with /" if "\\" in first.path.name else ""
        raise InputError(
            f"data {path}: {len(missing)} of {len(rows)} files are not there; the first is "
            f"{first.path} (line {first.line}); relative paths start at the list's folder{hint}"
        )


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name too long for the system, or with a NUL in it
        return False


def _refuse_repeated(path: Path, rows: Sequence[_Row]) -> None:
    """An image with two labels is a mistake, and one in two splits would be tested on itself."""
    seen: dict[Path, int] = {}
    for row in rows:
        if (before := seen.setdefault(row.path, row.line)) != row.line:
            raise InputError(
                f"data {path}: {row.path} is listed twice, in the lines {before} and {row.line}"
            )


def _is_number(text: str) -> bool:
    return len(text) < _MOST_DIGITS and text.isdecimal() and text == str(int(text))


def _as_labels(texts: Sequence[str]) -> NDArray[Any]:
    numbers = all(_is_number(text) for text in texts)
    return np.array(texts, dtype=np.int64 if numbers else np.str_)
