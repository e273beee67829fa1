"""Where images come from: the digits, a folder, a torchvision dataset, a function of the user's.

Nothing is decoded here. A source gives labels and, for each image, something that
`decode.decode_image` understands.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compress_export.data.splits import stratified_split
from compressor.errors import InputError
from compressor.user_code import first_line, is_callable_spec, load_callable

TEST_SHARE = 0.2
_DIGITS_SPLIT_SEED = 0  # the digits' test images are the same ones in every run


@dataclass(frozen=True)
class RawSet:
    """Images not yet decoded, and their classes.

    Attributes:
        images: paths, uint8 arrays (H, W[, 1 or 3]) or Pillow images.
        labels: int64, (N,).
    """

    images: Sequence[Any]
    labels: NDArray[np.int64]

    def take(self, indices: NDArray[np.int64]) -> RawSet:
        return RawSet([self.images[i] for i in indices], self.labels[indices])


@dataclass(frozen=True)
class RawData:
    """Everything that a source knows.

    Attributes:
        validation: None where it is to be taken from the training images.
        flip_allowed: whether a mirrored image keeps its class.
        description: one phrase for the report.
    """

    name: str
    classes: tuple[str, ...]
    train: RawSet
    validation: RawSet | None
    test: RawSet
    flip_allowed: bool
    description: str


def open_source(spec: str, seed: int, data_root: Path | None) -> RawData:
    """Resolve `spec`, in this order: `digits`, an existing folder, `package.module:function`, the
    name of a torchvision dataset under `data_root` (by default `data`).

    Raises:
        InputError: nothing of that name, or a source that lacks images or classes.
    """
    from compress_export.data.folders import open_folder
    from compress_export.data.torchvision_sets import dataset_names, open_torchvision

    if spec == "digits":
        return open_digits()
    path = Path(spec).expanduser()
    if path.is_dir():
        return open_folder(path, seed)
    if path.is_file():
        raise InputError(f"data {spec!r} is a file; unpack it and give the folder")
    if is_callable_spec(spec):
        return open_function(spec)
    names = dataset_names()
    if spec.lower() in names:
        return open_torchvision(names[spec.lower()], data_root or Path("data"), seed)
    if len(path.parts) > 1 or spec.startswith((".", "~")):
        raise InputError(f"data {spec!r}: no such folder{_nearest_folder(path)}")
    close = difflib.get_close_matches(spec.lower(), ["digits", *names], n=3, cutoff=0.6)
    hint = f"; did you mean {', '.join(names.get(c, c) for c in close)}?" if close else ""
    raise InputError(
        f"data {spec!r} is neither 'digits', a folder, package.module:function nor a torchvision "
        f"dataset{hint}"
    )


def open_digits() -> RawData:
    """scikit-learn's 1,797 handwritten digits, 8 x 8 grey; a fifth of each class is for testing."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)  # 0..16 -> 0..255
    whole = RawSet(list(images), digits.target.astype(np.int64))
    train, test = stratified_split(whole.labels, TEST_SHARE, _DIGITS_SPLIT_SEED)
    return RawData(
        name="digits",
        classes=tuple(str(name) for name in digits.target_names),
        train=whole.take(train),
        validation=None,
        test=whole.take(test),
        flip_allowed=False,
        description="scikit-learn's digits, 1,797 images of 8 x 8 pixels",
    )


def open_function(spec: str) -> RawData:
    """Call the user's function: `(images, labels), (images, labels), classes` for train and test.

    Images are uint8 (N, H, W, C), (N, C, H, W) with C of 1 or 3, or (N, H, W).
    """
    function = load_callable(spec, "data")
    try:
        (train_images, train_labels), (test_images, test_labels), names = function()
    except Exception as error:
        raise InputError(
            f"data {spec!r}: it must return ((images, labels), (images, labels), classes); "
            f"calling it gave {type(error).__name__}: {first_line(error)}"
        ) from error
    classes = tuple(str(name) for name in names)
    return RawData(
        name=spec,
        classes=classes,
        train=_checked_arrays(spec, "training", train_images, train_labels, len(classes)),
        validation=None,
        test=_checked_arrays(spec, "test", test_images, test_labels, len(classes)),
        flip_allowed=True,
        description=f"the function {spec}",
    )


def _checked_arrays(spec: str, part: str, images: Any, labels: Any, classes: int) -> RawSet:
    pixels, wanted = np.asarray(images), np.asarray(labels)
    if pixels.dtype != np.uint8:
        raise InputError(f"data {spec!r}: {part} images must be uint8, they are {pixels.dtype}")
    if pixels.ndim == 4 and pixels.shape[-1] not in (1, 3) and pixels.shape[1] in (1, 3):
        pixels = pixels.transpose(0, 2, 3, 1)  # NCHW -> NHWC
    if pixels.ndim not in (3, 4) or (pixels.ndim == 4 and pixels.shape[-1] not in (1, 3)):
        raise InputError(
            f"data {spec!r}: {part} images must have the shape (N, H, W, C) or (N, C, H, W) with "
            f"1 or 3 channels, or (N, H, W); they have {pixels.shape}"
        )
    if wanted.shape != (len(pixels),) or not np.issubdtype(wanted.dtype, np.integer):
        raise InputError(
            f"data {spec!r}: {part} labels must be {len(pixels)} integers, one per image; they are "
            f"{wanted.dtype} of shape {wanted.shape}"
        )
    if len(wanted) and not 0 <= wanted.min() <= wanted.max() < classes:
        raise InputError(
            f"data {spec!r}: {part} labels run from {wanted.min()} to {wanted.max()}, but "
            f"{classes} classes are named, so 0 to {classes - 1} is allowed"
        )
    return RawSet(pixels, wanted.astype(np.int64))  # type: ignore[arg-type]  # rows are images


def _nearest_folder(path: Path) -> str:
    there = next((p for p in path.absolute().parents if p.is_dir()), None)
    return (
        f"; {there} exists and holds no {path.absolute().relative_to(there).parts[0]!r}"
        if there
        else ""
    )
