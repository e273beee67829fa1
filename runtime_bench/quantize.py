"""Between the network's float NCHW batches and the tensors a file takes and gives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from runtime_bench.manifest import Normalisation, TensorSpec

if TYPE_CHECKING:
    import numpy.typing as npt

    FloatArray = npt.NDArray[np.float32]
    AnyArray = npt.NDArray[Any]


def quantize(values: FloatArray, scale: float, zero_point: int, dtype: str) -> AnyArray:
    """Stored integers: round(values / scale) + zero_point, clipped to the dtype's range.

    Halves round to even, as both runtimes do. Same shape as `values`.
    """
    limits = np.iinfo(dtype)
    stored = np.rint(values / np.float32(scale)) + np.float32(zero_point)
    clipped: AnyArray = np.clip(stored, limits.min, limits.max).astype(dtype)
    return clipped


def dequantize(stored: AnyArray, scale: float, zero_point: int) -> FloatArray:
    """Real values: scale * (stored - zero_point), float32, same shape."""
    shifted = stored.astype(np.int32) - np.int32(zero_point)
    return (shifted * np.float32(scale)).astype(np.float32)


def to_native(batch: FloatArray, spec: TensorSpec) -> AnyArray:
    """A float32 NCHW batch [b, C, H, W] in the layout and dtype that the file's input takes.

    For a file that normalises by itself the batch is turned back into the pixels it was made of.
    """
    if spec.normalisation is not None:
        batch = to_pixels(batch, spec.normalisation)
    if spec.layout == "NHWC":
        batch = batch.transpose(0, 2, 3, 1)  # [b, H, W, C]
    if spec.scale is not None and spec.zero_point is not None:
        return np.ascontiguousarray(quantize(batch, spec.scale, spec.zero_point, spec.dtype))
    return np.ascontiguousarray(batch, dtype=spec.dtype)


def to_pixels(batch: FloatArray, done: Normalisation) -> AnyArray:
    """Normalised images, float32 [b, C, H, W], back to uint8: (x * std + mean) / scale, rounded."""
    mean, std = (np.reshape(value, (-1, 1, 1)) for value in (done.mean, done.std))
    pixels: AnyArray = np.rint((batch * std + mean) / done.scale)
    return np.clip(pixels, 0, 255).astype(np.uint8)


def from_native(output: AnyArray, spec: TensorSpec) -> FloatArray:
    """The file's output as float32 logits [b, classes]."""
    return real_values(output, spec).reshape(len(output), -1)


def real_values(output: AnyArray, spec: TensorSpec) -> FloatArray:
    """A file's output as float32, same shape."""
    if spec.scale is not None and spec.zero_point is not None:
        output = dequantize(output, spec.scale, spec.zero_point)
    return output.astype(np.float32, copy=False)
