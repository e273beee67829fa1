"""From stored images to the network's input, as the manifest's preprocessing says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from runtime_bench.manifest import Preprocessing

if TYPE_CHECKING:
    import numpy.typing as npt


def normalise(
    images: npt.NDArray[np.uint8], preprocessing: Preprocessing
) -> npt.NDArray[np.float32]:
    """uint8 RGB images [b, H, W, C] -> float32 [b, C, H, W], (pixel * scale - mean) / std."""
    if preprocessing.channel_order == "BGR":
        images = images[..., ::-1]
    mean = np.asarray(preprocessing.mean, dtype=np.float32)
    std = np.asarray(preprocessing.std, dtype=np.float32)
    batch = (images.astype(np.float32) * np.float32(preprocessing.scale) - mean) / std
    return np.ascontiguousarray(batch.transpose(0, 3, 1, 2))  # [b, C, H, W]
