"""Structured images without a download: crops of the two photographs in scikit-learn.

Noise would not do: behind random filters it gives every image the same output, and calibration
ranges that no real image has.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from compressor.models.registry import IMAGENET_MEAN, IMAGENET_STD

SMALLEST_CROP = 0.15
"""Side of a crop at least, as a share of the photograph's shorter side."""


def crops(count: int, size: int, seed: int) -> NDArray[np.float32]:
    """Random crops of random size, half of them mirrored, normalised, shape (count, 3, S, S)."""
    from sklearn.datasets import load_sample_images

    photographs = [Image.fromarray(pixels) for pixels in load_sample_images().images]
    rng = np.random.default_rng(seed)
    pixels = np.stack([_crop(photographs[i % len(photographs)], size, rng) for i in range(count)])
    normalised = (pixels / 255 - np.array(IMAGENET_MEAN)) / np.array(IMAGENET_STD)
    return np.ascontiguousarray(normalised.transpose(0, 3, 1, 2), dtype=np.float32)


def _crop(photograph: Image.Image, size: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    shorter = min(photograph.size)
    side = int(shorter * rng.uniform(SMALLEST_CROP, 1.0))
    left = int(rng.integers(photograph.width - side + 1))
    top = int(rng.integers(photograph.height - side + 1))
    patch = photograph.crop((left, top, left + side, top + side))
    patch = patch.resize((size, size), Image.Resampling.BILINEAR)
    pixels = np.asarray(patch)
    return pixels[:, ::-1] if rng.random() < 0.5 else pixels
