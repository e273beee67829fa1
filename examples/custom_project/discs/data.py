"""The images: discs of random place, size and colour on noise, and where they are."""

import numpy as np
from numpy.typing import NDArray

SIZE = 32  # height and width in pixels; also `input-size` in job.yaml

Images = NDArray[np.uint8]
Masks = NDArray[np.int64]


def images() -> tuple[tuple[Images, Masks], tuple[Images, Masks], list[str]]:
    """Return images and masks to train with, the same to test with, and the names of the outputs.

    Images are uint8 (N, 32, 32, 3); masks are 1 inside the disc and 0 elsewhere, int64 (N, 32, 32).
    """
    return _draw(640, seed=0), _draw(160, seed=1), ["disc"]


def _draw(count: int, seed: int) -> tuple[Images, Masks]:
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:SIZE, :SIZE]
    pictures = random.integers(0, 160, (count, SIZE, SIZE, 3))
    masks = np.zeros((count, SIZE, SIZE), dtype=np.int64)
    for picture, mask in zip(pictures, masks, strict=True):
        centre_y, centre_x, radius = random.uniform((6, 6, 4), (26, 26, 10))
        inside = (y - centre_y) ** 2 + (x - centre_x) ** 2 < radius**2
        mask[inside] = 1
        picture[inside] += random.integers(30, 95, 3)
    return pictures.astype(np.uint8), masks
