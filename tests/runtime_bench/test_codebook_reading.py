"""Damaged codebook files give one clear line; bytes laid out by hand are read as documented."""

from __future__ import annotations

import hashlib
import json
import lzma
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runtime_bench.codebook_file import read_codebook_file
from runtime_bench.errors import CodebookError


def by_hand(tensors: list[dict[str, Any]], data: bytes, *, version: int = 1) -> bytes:
    """A file as docs/codebook.md describes it."""
    header = json.dumps({"tensors": tensors}).encode()
    body = struct.pack("<I", len(header)) + header + data
    head = b"CODEBOOK" + struct.pack("<IQ", version, len(body)) + hashlib.sha256(body).digest()
    return head + lzma.compress(body)


# Six weights: 0.5 -1 0.5 2 2 -1, indices 0 1 0 2 2 1 of two bits, the first ones lowest.
SHARED = {"name": "conv.weight", "dtype": "<f4", "shape": [2, 3], "entries": 3}
PLAIN = {"name": "count", "dtype": "<i8", "shape": [], "entries": 0}
DATA = struct.pack("<3f", 0.5, -1, 2) + bytes([0b10_00_01_00, 0b01_10]) + struct.pack("<q", 7)


def test_a_file_by_hand(tmp_path: Path) -> None:
    path = tmp_path / "slim.codebook"
    path.write_bytes(by_hand([SHARED, PLAIN], DATA))
    state = read_codebook_file(path)
    assert list(state) == ["conv.weight", "count"]
    assert state["conv.weight"].tolist() == [[0.5, -1, 0.5], [2, 2, -1]]
    assert state["conv.weight"].dtype == np.float32
    assert state["count"].shape == () and state["count"] == 7
    state["conv.weight"][0, 0] = 3  # an array of its own, not a view of the file


def test_every_cut_and_every_changed_byte_is_noticed(tmp_path: Path) -> None:
    path, intact = tmp_path / "slim.codebook", by_hand([SHARED, PLAIN], DATA)
    cut = [intact[:length] for length in range(len(intact))]
    changed = [
        intact[:place] + bytes([intact[place] ^ 0x10]) + intact[place + 1 :]
        for place in range(len(intact))
    ]
    for damaged in (*cut, *changed, intact + b"\0"):
        path.write_bytes(damaged)
        with pytest.raises(CodebookError, match=r"slim\.codebook: [^\n]*$"):
            read_codebook_file(path)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "not a codebook file"),
        (b"PK\3\4" + bytes(100), "not a codebook file"),
        (by_hand([PLAIN], DATA[-8:], version=2), "version 2, this reader knows 1"),
        (by_hand([{**PLAIN, "dtype": "|O"}], DATA[-8:]), "dtype '|O'"),
        (by_hand([PLAIN], DATA[-4:]), "count wants 8 bytes, 4 are left"),
        (by_hand([PLAIN], DATA), "bytes belong to no tensor"),
        (by_hand([{**SHARED, "entries": 257}], bytes(4 * 257)), "a codebook of 257 entries"),
        (by_hand([{**SHARED, "entries": 1}], bytes(4) + b"\2"), "out of bounds"),
        (by_hand([{**SHARED, "shape": [-2, 3]}], DATA), "wants"),
        (by_hand([{"name": "x"}], b""), "description is wrong"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "slim.codebook"
    path.write_bytes(content)
    with pytest.raises(CodebookError, match=r"slim\.codebook") as caught:
        read_codebook_file(path)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CodebookError, match="No such file"):
        read_codebook_file(tmp_path / "none.codebook")
