"""Batches for training and for evaluation, prepared while the previous one is in use."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from compress_export.data.decode import Pixels
from compress_export.data.image_set import ImageSet
from compress_export.data.preprocessing import Preprocessing
from compressor.errors import InputError

if TYPE_CHECKING:
    import torch

    Batch = tuple[torch.Tensor, torch.Tensor]

T = TypeVar("T")

_ORDER, _AUGMENTATION = 0, 1  # independent random streams of one epoch


def train_batches(
    image_set: ImageSet,
    preprocessing: Preprocessing,
    batch_size: int,
    seed: int,
    epoch: int,
    augment: bool = True,
    flip: bool = False,
) -> Iterator[Batch]:
    """One epoch in random order.

    Order and augmentation follow from (seed, epoch) alone, so that a resumed run sees what the
    undisturbed run would have seen.

    Args:
        augment: shift by up to an eighth of the size each way, black moving in at the borders.
        flip: also mirror half of the images, where `augment` is set.

    Yields:
        Images float32 (B, 3, H, W), normalised, and labels int64 (B,). The last batch may be
        smaller; one of a single image is left out, since batch norm can't train on it.
    """

    def batches() -> Iterator[tuple[Pixels, NDArray[np.int64]]]:
        crops = _Crops.draw(len(image_set), image_set.size, seed, epoch, flip) if augment else None
        for indices in train_order(len(image_set), batch_size, seed, epoch):
            pixels = image_set.read(indices)
            if crops is not None:
                pixels = crops.apply(pixels, indices)
            yield pixels, image_set.labels[indices]

    return _normalised(batches(), preprocessing)


def train_order(count: int, batch_size: int, seed: int, epoch: int) -> list[NDArray[np.int64]]:
    """Indices of each batch that `train_batches` yields, in its order."""
    if batch_size < 1:
        raise InputError(f"batch size must be at least 1, got {batch_size}")
    order = np.random.default_rng([seed, epoch, _ORDER]).permutation(count)
    chunks = [order[start : start + batch_size] for start in range(0, count, batch_size)]
    return [chunk for chunk in chunks if len(chunk) > 1 or batch_size == 1]


def eval_batches(
    image_set: ImageSet, preprocessing: Preprocessing, batch_size: int = 256
) -> Iterator[Batch]:
    """All images in their order: float32 (B, 3, H, W) and int64 (B,)."""

    def batches() -> Iterator[tuple[Pixels, NDArray[np.int64]]]:
        for start in range(0, len(image_set), batch_size):
            indices = np.arange(start, min(start + batch_size, len(image_set)))
            yield image_set.read(indices), image_set.labels[indices]

    return _normalised(batches(), preprocessing)


def _normalised(
    batches: Iterator[tuple[Pixels, NDArray[np.int64]]], preprocessing: Preprocessing
) -> Iterator[Batch]:
    """Prefetch, then normalise in the consumer's thread: PyTorch keeps a pool of threads for each
    thread that computes with it, and two pools on the same cores slow the training down."""
    import torch

    with closing(prefetch(batches)) as ready:
        for pixels, labels in ready:
            yield preprocessing.normalize(torch.from_numpy(pixels)), torch.from_numpy(labels)


def prefetch(items: Iterator[T]) -> Generator[T, None, None]:
    """Make the next item in a thread while the current one is in use.

    Errors surface where the item would have; a consumer that stops early leaves no thread behind.
    """
    end = object()
    with ThreadPoolExecutor(1, thread_name_prefix="prefetch") as pool:
        ahead = pool.submit(next, items, end)
        while (item := ahead.result()) is not end:
            ahead = pool.submit(next, items, end)
            yield item  # type: ignore[misc]  # it is not `end`


class _Crops:
    """Random shifts and mirrorings, drawn for every image of the set at once."""

    def __init__(
        self, top: NDArray[np.int64], left: NDArray[np.int64], mirror: NDArray[np.bool_], pad: int
    ) -> None:
        self._top, self._left, self._mirror, self._pad = top, left, mirror, pad

    @classmethod
    def draw(cls, count: int, size: int, seed: int, epoch: int, flip: bool) -> _Crops:
        random = np.random.default_rng([seed, epoch, _AUGMENTATION])
        pad = size // 8
        top = random.integers(0, 2 * pad + 1, count)
        left = random.integers(0, 2 * pad + 1, count)
        mirror = random.random(count) < 0.5
        return cls(top, left, mirror if flip else np.zeros(count, dtype=bool), pad)

    def apply(self, pixels: Pixels, indices: NDArray[np.int64]) -> Pixels:
        """uint8 (B, 3, H, W) -> the same shape; `indices` say whose draws to use."""
        size, pad = pixels.shape[-1], self._pad
        padded = np.pad(pixels, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
        windows = sliding_window_view(padded, (size, size), axis=(2, 3))
        batch = np.arange(len(indices))
        cropped = windows[batch, :, self._top[indices], self._left[indices]]  # (B, 3, H, W)
        mirror = self._mirror[indices]
        cropped[mirror] = cropped[mirror, :, :, ::-1]
        return np.ascontiguousarray(cropped)
