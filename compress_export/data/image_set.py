"""A set of labelled images that is either held in memory as uint8 or decoded batch by batch."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from compress_export.data.decode import (
    Broken,
    Pixels,
    decode_all,
    decode_image,
    name_of,
    worker_count,
)
from compressor.errors import InputError
from compressor.user_code import first_line

if TYPE_CHECKING:
    import torch

_DIGESTED = 1024
"""Images of a set that is decoded anew in every epoch: another epoch for a digest is too much."""

_AT_ONCE = 256
MAX_MEMORY_BYTES = 2 * 2**30  # of decoded pixels, in all sets of a job


class PixelStore(Protocol):
    """Where the pixels of a set come from.

    Attributes:
        held_bytes: memory that the pixels take as long as the set is there.
    """

    size: int
    held_bytes: int

    def read(self, rows: NDArray[np.int64]) -> Pixels:
        """uint8 (len(rows), 3, size, size), a new array."""


class MemoryPixels:
    """Pixels decoded beforehand, (N, 3, size, size)."""

    def __init__(self, pixels: Pixels) -> None:
        self.size = pixels.shape[-1]
        self.held_bytes = pixels.nbytes
        self._pixels = pixels

    def read(self, rows: NDArray[np.int64]) -> Pixels:
        return self._pixels[rows]


class LazyPixels:
    """Pixels decoded when they are asked for, by a few threads at once."""

    def __init__(self, items: Sequence[Any], size: int) -> None:
        self.size = size
        self.held_bytes = 0
        self._items = items
        self._pool = ThreadPoolExecutor(worker_count())

    def read(self, rows: NDArray[np.int64]) -> Pixels:
        out = np.empty((len(rows), 3, self.size, self.size), dtype=np.uint8)
        for position, pixels in enumerate(self._pool.map(self._decode, rows)):
            out[position] = pixels
        return out

    def _decode(self, row: int) -> Pixels:
        try:
            return decode_image(self._items[row], self.size)
        except Exception as error:  # it was readable when the data was checked
            raise InputError(
                f"{name_of(self._items, row)} can't be read any more ({first_line(error)}); "
                "was the data changed during the run?"
            ) from error


class ImageSet:
    """Labelled images of one size.

    Attributes:
        labels: class of each image, int64 (N,), or what a user's own loss understands, (N, ...).
        size: height and width in pixels.
        held_bytes: memory that its pixels take.
    """

    def __init__(
        self,
        store: PixelStore,
        labels: NDArray[Any],
        rows: NDArray[np.int64] | None = None,
    ) -> None:
        """`labels[i]` belongs to row `rows[i]` of the store; without rows, to row i."""
        self.labels = labels
        self.size = store.size
        self.held_bytes = store.held_bytes
        self._store = store
        self._rows = np.arange(len(labels)) if rows is None else rows

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, indices: NDArray[np.int64]) -> Pixels:
        """Images by index, uint8 (B, 3, H, W), a new array."""
        return self._store.read(self._rows[indices])

    def batch(
        self, indices: NDArray[np.int64] | Sequence[int]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Images uint8 (B, 3, H, W) and labels int64 (B,) by index."""
        import torch

        chosen = np.asarray(indices, dtype=np.int64)
        return torch.from_numpy(self.read(chosen)), torch.from_numpy(self.labels[chosen])

    def add_to(self, digest: hashlib._Hash) -> None:
        """Add labels and pixels to a digest; of pixels that are not held, those of some images."""
        digest.update(f"{self.labels.dtype} {self.labels.shape}".encode())
        digest.update(np.ascontiguousarray(self.labels).tobytes())
        count = len(self) if self.held_bytes else min(len(self), _DIGESTED)
        rows = np.arange(count) * len(self) // max(count, 1)
        for some in np.array_split(rows, math.ceil(count / _AT_ONCE)) if count else ():
            digest.update(self.read(some).tobytes())

    def subset(self, indices: NDArray[np.int64]) -> ImageSet:
        """The images at `indices`, in that order; the pixels are shared, not copied."""
        return ImageSet(self._store, self.labels[indices], self._rows[indices])


def read_image_set(
    items: Sequence[Any],
    labels: NDArray[Any],
    size: int,
    progress: Callable[[int], None],
    max_memory_bytes: int = MAX_MEMORY_BYTES,
) -> tuple[ImageSet, list[Broken]]:
    """Decode (or, above `max_memory_bytes`, check) every image and leave the broken ones out."""
    in_memory = len(items) * 3 * size * size <= max_memory_bytes
    pixels = np.empty((len(items), 3, size, size), dtype=np.uint8) if in_memory else None
    broken = decode_all(items, size, pixels, progress)
    whole = np.ones(len(items), dtype=bool)
    whole[[b.row for b in broken]] = False
    usable = np.flatnonzero(whole)
    store: PixelStore = LazyPixels(items, size) if pixels is None else MemoryPixels(pixels)
    return ImageSet(store, labels[usable], usable), broken
