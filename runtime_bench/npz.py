"""What the arrays of an .npz file are, told before any memory is taken for them."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

_MOST_RATIO = 300
_UNSUSPICIOUS_BYTES = 2**28


class Header(NamedTuple):
    """How an array is stored."""

    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype[Any]


def read_headers(path: Path) -> dict[str, Header]:
    """Return the arrays of a file by name.

    Raises:
        ValueError: arrays that declare another size than they have, hold Python objects, or unpack
            to 300 times the file and more than 256 MiB.
        Exception: of nearly any type, of a damaged file.
    """
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        unpacked_bytes = sum(member.file_size for member in members)
        if unpacked_bytes > max(_MOST_RATIO * Path(path).stat().st_size, _UNSUSPICIOUS_BYTES):
            raise ValueError(f"unpacked it would be {unpacked_bytes} bytes")
        return {_name(member): _checked_header(archive, member) for member in members}


def read_arrays(path: Path, names: set[str]) -> dict[str, npt.NDArray[Any]]:
    """Return those of the named arrays that a file holds; errors are those of `read_headers`."""
    found = read_headers(path)
    with np.load(path, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in found if name in names}


def read_header(stream: IO[bytes]) -> Header:
    """Return the header of an .npy stream, which then stands at its data."""
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        return Header(*np.lib.format.read_array_header_1_0(stream))
    return Header(*np.lib.format.read_array_header_2_0(stream))


def _name(member: zipfile.ZipInfo) -> str:
    return member.filename[:-4] if member.filename.endswith(".npy") else member.filename


def _checked_header(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Header:
    with archive.open(member) as stream:
        header = read_header(stream)
        data_bytes = member.file_size - stream.tell()
    if header.dtype.hasobject or not header.dtype.itemsize:
        raise ValueError(f"{member.filename} holds Python objects, or values of no size")
    # numpy takes memory for the shape that the header says, before it reads anything
    wanted_bytes = math.prod(header.shape) * header.dtype.itemsize
    if min(header.shape, default=0) < 0 or wanted_bytes != data_bytes:
        raise ValueError(f"{member.filename} has {data_bytes} bytes, its shape has {wanted_bytes}")
    return header
