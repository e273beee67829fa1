"""Labelled images for the accuracy figures, streamed from an .npz file.

images uint8 [N, H, W, C] (RGB), labels int64 [N], and optionally predictions_baseline and
predictions_slim int64 [N]: torch's top-1 per stage, which agreement is measured against.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from runtime_bench.errors import SamplesError
from runtime_bench.metrics import top1
from runtime_bench.npz import Header, read_arrays, read_header, read_headers

if TYPE_CHECKING:
    import numpy.typing as npt

_IMAGES = "images.npy"
_VECTORS = ("labels", "predictions_baseline", "predictions_slim")


@dataclass(frozen=True, eq=False)
class Samples:
    """An open question to the file at `path`: only the labels are in memory, images are read in
    batches, so that a set larger than the board's memory can still be evaluated."""

    path: Path
    labels: npt.NDArray[np.int64]
    image_shape: tuple[int, int, int]
    """(height, width, channels)"""
    predictions: dict[str, npt.NDArray[np.int64]]
    """torch's top-1 by stage, "baseline" and "slim" where the file has them"""

    def __len__(self) -> int:
        return len(self.labels)

    def baseline_top1(self) -> float | None:
        """Top-1 of the baseline in torch; None where the file doesn't hold its predictions."""
        predictions = self.predictions.get("baseline")
        return None if predictions is None else top1(self.labels, predictions)

    def batches(self, size: int) -> Iterator[npt.NDArray[np.uint8]]:
        """Images in file order, uint8 [b, H, W, C] with b = size but for the last batch."""
        image_bytes = int(np.prod(self.image_shape))
        with zipfile.ZipFile(self.path) as archive, archive.open(_IMAGES) as stream:
            read_header(stream)
            for start in range(0, len(self), size):
                count = min(size, len(self) - start)
                data = stream.read(count * image_bytes)
                if len(data) != count * image_bytes:
                    raise SamplesError(f"{self.path}: images end early; was the copy cut off?")
                yield np.frombuffer(data, dtype=np.uint8).reshape(count, *self.image_shape)


def open_samples(
    path: Path, image_shape: tuple[int, int, int] | None = None, classes: int | None = None
) -> Samples:
    """Read the labels of `path` and check it.

    Args:
        image_shape: (channels, height, width) that the network takes; None to accept any.
        classes: number of classes, above every label; None to accept any.

    Raises:
        SamplesError: not an .npz with the arrays above, or it doesn't fit the network.
    """
    path = Path(path)
    try:
        samples = _open(path)
    except SamplesError:
        raise
    except Exception as error:  # damaged bytes surface as nearly any kind of error
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise SamplesError(
            f"{path}: can't be read as samples ({reason}); expected an .npz with images uint8 "
            "[N, H, W, C] and labels int64 [N]"
        ) from error
    if image_shape is not None:
        channels, height, width = image_shape
        if samples.image_shape != (height, width, channels):
            raise SamplesError(
                f"{path}: images are {samples.image_shape} (H, W, C), the network takes "
                f"{(height, width, channels)}; were they made for another model?"
            )
    if classes is not None and not 0 <= samples.labels.min() <= samples.labels.max() < classes:
        raise SamplesError(
            f"{path}: labels run from {samples.labels.min()} to {samples.labels.max()}, the "
            f"network has {classes} classes; were the samples made for another model?"
        )
    return samples


def _open(path: Path) -> Samples:
    headers = read_headers(path)
    if "images" not in headers:
        raise SamplesError(f"{path}: 'images' is missing")
    shape, fortran, dtype = headers["images"]
    if len(shape) != 4 or dtype != np.uint8 or fortran:
        raise SamplesError(
            f"{path}: images are {dtype} {shape}, expected uint8 [N, H, W, C] in C order"
        )
    for name in _VECTORS:
        if name in headers or name == "labels":
            _check_vector(path, name, headers.get(name), shape[0])
    arrays = read_arrays(path, set(_VECTORS))
    predictions = {
        stage: arrays[f"predictions_{stage}"].astype(np.int64)
        for stage in ("baseline", "slim")
        if f"predictions_{stage}" in arrays
    }
    labels = arrays["labels"].astype(np.int64)
    return Samples(path, labels, (shape[1], shape[2], shape[3]), predictions)


def _check_vector(path: Path, name: str, found: Header | None, count: int) -> None:
    if found is None:
        raise SamplesError(f"{path}: '{name}' is missing")
    if found.shape != (count,) or found.dtype.kind not in "iu" or count == 0:
        raise SamplesError(
            f"{path}: '{name}' is {found.dtype} {found.shape} beside {count} images, "
            "expected one integer per image and at least one image"
        )
