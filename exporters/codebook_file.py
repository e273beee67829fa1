"""Write a network's tensors as codebooks and packed indices: NAME.codebook, docs/codebook.md.

The format knows nothing of networks: a tensor of few distinct values is stored as these values and
an index each, any other as it is, and all come back bit for bit, read by
`runtime_bench.codebook_file`.
"""

from __future__ import annotations

import hashlib
import json
import lzma
import struct
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exporters.artifacts import sha256_of

MAGIC = b"CODEBOOK"
VERSION = 1
MAX_ENTRIES = 256

_WIDTHS = (1, 2, 4, 8)
"""Bits of an index. Those that divide a byte: indices that straddle two of them, as 6 bits would,
hide what the coder finds (docs/codebook.md has the figures)."""

_PRESET = 6 | lzma.PRESET_EXTREME
"""A dictionary of 8 MiB, which is what a board needs to unpack; larger ones find no more."""


@dataclass(frozen=True)
class CodebookFile:
    """A written file, as in manifest.json.

    Attributes:
        path: name of the file in its folder.
        size_bytes: of the file, which is compressed already.
        sha256: of the file.
        entries: of the largest codebook.
        expanded_bytes: of all tensors.
    """

    path: str
    size_bytes: int
    sha256: str
    entries: int
    expanded_bytes: int

    def to_json(self) -> dict[str, Any]:
        """The entry of manifest.json as plain JSON types."""
        return asdict(self)


def write_codebook_file(state: Mapping[str, NDArray[Any]], path: Path) -> CodebookFile:
    """Write tensors, such as those of a state dict with shared weights.

    Args:
        state: name -> array of numbers, of any shape.
        path: is replaced where it exists.
    """
    headers, contents, largest = [], [], 0
    for name, given in state.items():
        array = np.asarray(given, np.asarray(given).dtype.newbyteorder("<"), order="C")
        entries, content = _coded(array)
        largest = max(largest, entries)
        dtype, shape = array.dtype.str, list(array.shape)
        headers.append({"name": name, "dtype": dtype, "shape": shape, "entries": entries})
        contents.append(content)
    header = json.dumps({"tensors": headers}, separators=(",", ":")).encode()
    body = struct.pack("<I", len(header)) + header + b"".join(contents)
    digest = hashlib.sha256(body).digest()
    head = MAGIC + struct.pack("<IQ", VERSION, len(body)) + digest
    path.write_bytes(head + lzma.compress(body, preset=_PRESET))
    return CodebookFile(
        path=path.name,
        size_bytes=path.stat().st_size,
        sha256=sha256_of(path),
        entries=largest,
        expanded_bytes=sum(np.asarray(array).nbytes for array in state.values()),
    )


def index_bits(entries: int) -> int:
    """Return the bits of an index into a codebook of 1 to 256 entries."""
    return next(width for width in _WIDTHS if 1 << width >= entries)


def pack_indices(indices: NDArray[np.integer[Any]], bits: int) -> bytes:
    """Pack indices, (N,), each below 2**bits, into bytes: the first ones in the lowest bits.

    Args:
        bits: 1, 2, 4 or 8. A last byte is filled up with zeros.
    """
    per_byte = 8 // bits
    padded = np.zeros(-(-len(indices) // per_byte) * per_byte, np.uint8)
    padded[: len(indices)] = indices
    shifts = (np.arange(per_byte) * bits).astype(np.uint8)
    return bytes(np.bitwise_or.reduce(padded.reshape(-1, per_byte) << shifts, axis=1))


def _coded(array: NDArray[Any]) -> tuple[int, bytes]:
    """Return entries and content: the codebook with indices where it is smaller, else 0 and all.

    Values are told apart by their bits, so that negative zeros come back as such.
    """
    plain = array.tobytes()
    values, indices = np.unique(
        np.frombuffer(plain, f"<u{array.dtype.itemsize}"), return_inverse=True
    )
    if len(values) > MAX_ENTRIES:
        return 0, plain
    coded = values.tobytes() + pack_indices(indices.ravel(), index_bits(max(len(values), 1)))
    return (len(values), coded) if len(coded) < len(plain) else (0, plain)
