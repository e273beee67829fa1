"""Structured images without a download: crops of the two photographs in scikit-learn.

Noise would not do: behind random filters it gives every image the same output, and calibration
ranges that no real image has.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.zoo.models import CLASSES
from compressor.models.registry import IMAGENET_MEAN, IMAGENET_STD

SMALLEST_CROP, LARGEST_CROP = 0.25, 0.6
"""Side of a crop, as a share of the photograph's shorter side."""


def crops(count: int, size: int, seed: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Random crops of random size, half of them mirrored, and which strip each is from.

    Returns:
        Normalised images, shape (count, 3, size, size), and labels below `CLASSES`, shape (count,):
        the photograph and which fifth of its width the crop's middle is in.
    """
    from sklearn.datasets import load_sample_images

    photographs = [Image.fromarray(pixels) for pixels in load_sample_images().images]
    strips = CLASSES // len(photographs)
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % CLASSES
    pixels = np.stack(
        [
            _crop(photographs[label // strips], label % strips, strips, size, rng)
            for label in labels.tolist()
        ]
    )
    normalised = (pixels / 255 - np.array(IMAGENET_MEAN)) / np.array(IMAGENET_STD)
    images = np.ascontiguousarray(normalised.transpose(0, 3, 1, 2), dtype=np.float32)
    return images, labels


def _crop(
    photograph: Image.Image, strip: int, strips: int, size: int, rng: np.random.Generator
) -> NDArray[np.uint8]:
    side = int(min(photograph.size) * rng.uniform(SMALLEST_CROP, LARGEST_CROP))
    middle = int((strip + rng.random()) * photograph.width / strips)
    left = min(max(middle - side // 2, 0), photograph.width - side)
    top = int(rng.integers(photograph.height - side + 1))
    patch = photograph.crop((left, top, left + side, top + side))
    patch = patch.resize((size, size), Image.Resampling.BILINEAR)
    pixels = np.asarray(patch)
    return pixels[:, ::-1] if rng.random() < 0.5 else pixels
