"""Calibration samples: class-balanced, from the training images, preprocessed as for evaluation."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from compress_export.data.image_set import ImageSet
from compress_export.data.preprocessing import Preprocessing
from compressor.errors import InputError


def calibration_indices(labels: NDArray[np.int64], count: int, seed: int) -> NDArray[np.int64]:
    """Choose `count` images, or all where there are fewer.

    The classes take turns, so that every stretch of the result is as balanced as the data allows;
    a class that runs out leaves its turns to the others.

    Args:
        labels: class of each training image, (N,).

    Raises:
        InputError: a count below 1.
    """
    if count < 1:
        raise InputError(f"calibration needs at least one sample, got {count}")
    random = np.random.default_rng(seed)
    shuffled = random.permutation(len(labels))
    turn = np.empty(len(labels), dtype=np.int64)  # the how-manieth of its class an image is
    for label in np.unique(labels):
        members = shuffled[labels[shuffled] == label]
        turn[members] = np.arange(len(members))
    # Within a turn the order is random, not by class: a last, partial turn favours no class.
    by_turn = shuffled[np.argsort(turn[shuffled], kind="stable")]
    return by_turn[:count]


def calibration_batches(
    image_set: ImageSet,
    preprocessing: Preprocessing,
    indices: NDArray[np.int64],
    batch_size: int = 32,
) -> Iterator[NDArray[np.float32]]:
    """Stream the samples at `indices` as normalised float32 (B, 3, H, W) arrays, in order."""
    for start in range(0, len(indices), batch_size):
        pixels, _ = image_set.batch(indices[start : start + batch_size])
        yield preprocessing.normalize(pixels).numpy()
