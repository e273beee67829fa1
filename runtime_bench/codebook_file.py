"""Read a NAME.codebook file: the tensors of a network, stored as codebooks and packed indices.

No runtime computes on codebooks; they make a file small to store and to send. Whoever reads it gets
ordinary arrays:

    from runtime_bench.codebook_file import read_codebook_file
    state = read_codebook_file(Path("slim.codebook"))   # name -> array

Needs numpy and the standard library. docs/codebook.md has the format.
"""

from __future__ import annotations

import hashlib
import math
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from runtime_bench.errors import CodebookError
from runtime_bench.plain_json import parse_json

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAGIC = b"CODEBOOK"
VERSION = 1
_HEAD = struct.Struct("<8sIQ32s")
_DTYPES = ("<f2", "<f4", "<f8", "|i1", "<i2", "<i4", "<i8", "|u1", "<u2", "<u4", "<u8", "|b1")
_CAUSE = "was the file copied whole?"
_MOST_RATIO = 500
"""Of what a file expands to, beyond 64 MiB: no small file fills the memory."""
_UNSUSPICIOUS_BYTES = 2**26
_MOST_DICTIONARY_BYTES = 2**28


def read_codebook_file(path: Path) -> dict[str, NDArray[Any]]:
    """Return the tensors of a file by name, in its order, bit for bit as they were written.

    Raises:
        CodebookError: the file is missing, damaged, another version's, or no such file.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise CodebookError(f"{path}: {error.strerror}; {_CAUSE}") from error
    most_bytes = max(_MOST_RATIO * len(content), _UNSUSPICIOUS_BYTES)
    body = _body(path, content, most_bytes)
    try:
        (header_bytes,) = struct.unpack_from("<I", body)
        header = parse_json(body[4 : 4 + header_bytes])
        return _tensors(header["tensors"], memoryview(body)[4 + header_bytes :], most_bytes)
    except (struct.error, ValueError, KeyError, TypeError, IndexError, ArithmeticError) as error:
        raise CodebookError(f"{path}: its description is wrong ({error}); {_CAUSE}") from error


def unpack_indices(packed: NDArray[np.uint8], bits: int, count: int) -> NDArray[np.uint8]:
    """Return `count` indices of 1, 2, 4 or 8 bits from bytes, the lowest bits first."""
    shifts = (np.arange(8 // bits) * bits).astype(np.uint8)
    mask = np.uint8((1 << bits) - 1)
    indices: NDArray[np.uint8] = ((packed[:, None] >> shifts) & mask).reshape(-1)[:count]
    return indices


def _body(path: Path, content: bytes, most_bytes: int) -> bytes:
    """Uncompress what follows the head, and compare it with the head's SHA-256."""
    import lzma  # some boards' Python lacks it, and nothing else here needs it

    if len(content) < _HEAD.size or not content.startswith(MAGIC):
        raise CodebookError(f"{path}: not a codebook file; {_CAUSE}")
    _, version, body_bytes, digest = _HEAD.unpack_from(content)
    if version != VERSION:
        raise CodebookError(f"{path}: version {version}, this reader knows {VERSION}")
    if body_bytes > most_bytes:
        raise CodebookError(f"{path}: {len(content)} bytes that would become {body_bytes}")
    coder = lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=_MOST_DICTIONARY_BYTES)
    try:
        body = coder.decompress(content[_HEAD.size :], max_length=body_bytes + 1)
    except (lzma.LZMAError, EOFError) as error:
        raise CodebookError(f"{path}: damaged ({error}); {_CAUSE}") from error
    if len(body) != body_bytes or not coder.eof or coder.unused_data:
        raise CodebookError(f"{path}: damaged, it doesn't hold {body_bytes} bytes; {_CAUSE}")
    if hashlib.sha256(body).digest() != digest:
        raise CodebookError(f"{path}: its content has another SHA-256 than it says; {_CAUSE}")
    return body


def _tensors(
    entries: list[dict[str, Any]], data: memoryview, most_bytes: int
) -> dict[str, NDArray[Any]]:
    """Cut the data into arrays. Raises ValueError or IndexError where they don't fit it."""
    found = {}
    for entry in entries:
        values, data = _array(entry, data, most_bytes)
        most_bytes -= values.nbytes
        found[entry["name"]] = values
    if len(data):
        raise ValueError(f"{len(data)} bytes belong to no tensor")
    return found


def _array(
    entry: dict[str, Any], data: memoryview, most_bytes: int
) -> tuple[NDArray[Any], memoryview]:
    """Return the array that the data begins with, and the rest of the data."""
    if entry["dtype"] not in _DTYPES:
        raise ValueError(f"{entry['name']} has the dtype {entry['dtype']!r}")
    dtype, shape, entries = np.dtype(entry["dtype"]), entry["shape"], entry["entries"]
    if not all(type(size) is int for size in (entries, *shape)):
        raise ValueError(f"{entry['name']} has the shape {str(shape)[:80]}")
    count = math.prod(shape)
    if count * dtype.itemsize > most_bytes:
        raise ValueError(f"{entry['name']} of {count} values is more than such a file holds")
    values, data = _cut(entry, data, dtype, entries or count)
    if entries:
        bits = _index_bits(entries)
        packed, data = _cut(entry, data, np.dtype(np.uint8), math.ceil(count * bits / 8))
        values = values[unpack_indices(packed, bits, count)]
    return values.reshape(shape).copy(), data


def _cut(
    entry: dict[str, Any], data: memoryview, dtype: np.dtype[Any], count: int
) -> tuple[NDArray[Any], memoryview]:
    size = count * dtype.itemsize
    if not 0 <= size <= len(data):
        raise ValueError(f"{entry['name']} wants {size} bytes, {len(data)} are left")
    return np.frombuffer(data[:size], dtype), data[size:]


def _index_bits(entries: int) -> int:
    for width in (1, 2, 4, 8):
        if entries <= 1 << width:
            return width
    raise ValueError(f"a codebook of {entries} entries")
