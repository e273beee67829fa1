"""Images that are arrays: one .npz file, or a folder of .npy files, which are mapped, not read."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compress_export.data.raw import Part, RawData, RawSet, from_parts, number_classes
from compressor.errors import InputError
from compressor.user_code import first_line
from runtime_bench.npz import read_headers

# Names that a pair of images and labels goes by: ours, Keras's and MedMNIST's.
_PAIRS: dict[Part, tuple[tuple[str, str], ...]] = {
    "whole": (("x", "y"), ("images", "labels")),
    "train": (("train_x", "train_y"), ("x_train", "y_train"), ("train_images", "train_labels")),
    "val": (("val_x", "val_y"), ("x_val", "y_val"), ("val_images", "val_labels")),
    "test": (("test_x", "test_y"), ("x_test", "y_test"), ("test_images", "test_labels")),
}
_NAMES = frozenset(name for pairs in _PAIRS.values() for pair in pairs for name in pair)
_CLASSES = "classes"

Pair = tuple[NDArray[np.uint8], NDArray[Any]]


def holds_arrays(folder: Path) -> bool:
    """Whether a folder has .npy files with names of ours."""
    return any(path.stem in _NAMES for path in folder.glob("*.npy"))


def open_arrays(path: Path, seed: int) -> RawData:
    """Open `x` and `y`, or `train_x`, `train_y`, `test_x`, `test_y` and so on, and `classes`.

    Images as in `checked_pixels`. Labels are names or class numbers; `classes`, where it is there,
    names the classes of the latter.

    Raises:
        InputError: a damaged file, missing names, or arrays of another kind.
    """
    source = str(path)
    with ExitStack() as stack:
        pairs, names = _read(source, _open(path, stack))
    labels = np.concatenate([pair[1] for pair in pairs.values()])
    if names is not None and labels.dtype.kind in "iu":
        classes, numbers = names, checked_labels(source, labels, len(names))
    else:
        classes, numbers = number_classes(source, labels)
    parts: dict[Part, RawSet] = {}
    for part, (pixels, _) in pairs.items():
        parts[part] = RawSet(pixels, numbers[: len(pixels)])  # type: ignore[arg-type]  # rows
        numbers = numbers[len(pixels) :]
    return from_parts(source, parts, classes, seed, name=path.stem, kind="the arrays in")


def _open(path: Path, stack: ExitStack) -> Mapping[str, Any]:
    """Name -> array; nothing pickled is loaded, and nothing larger than the file lets expect."""
    try:
        if path.is_dir():
            ours = [p for p in path.glob("*.npy") if p.stem in _NAMES or p.stem == _CLASSES]
            return {p.stem: np.load(p, mmap_mode="r") for p in ours}
        loaded = np.load(path)
        if isinstance(loaded, np.lib.npyio.NpzFile):
            stack.enter_context(loaded)
            read_headers(path)
    except Exception as error:  # a damaged file surfaces as nearly any kind of error
        raise InputError(f"data {path}: no arrays can be read ({first_line(error)})") from error
    if not isinstance(loaded, np.lib.npyio.NpzFile):
        raise InputError(f"data {path}: this is a single array; save both with numpy.savez")
    return loaded


def _read(source: str, held: Mapping[str, Any]) -> tuple[dict[Part, Pair], tuple[str, ...] | None]:
    chosen = {part: pair for part in _PAIRS if (pair := _named(source, part, held)) is not None}
    if "whole" not in chosen and not ("train" in chosen and {"test", "val"} & chosen.keys()):
        raise InputError(
            f"data {source}: it holds {', '.join(sorted(held)) or 'nothing'}; expected are x and "
            "y, or train_x, train_y, test_x and test_y"
        )
    if "whole" in chosen:
        chosen = {"whole": chosen["whole"]}
    try:
        pairs = {part: (held[x], _real_text(held[y])) for part, (x, y) in chosen.items()}
        classes = _real_text(held[_CLASSES]) if _CLASSES in held else None
        names = None if classes is None else tuple(str(name) for name in np.ravel(classes))
    except Exception as error:  # as in _open
        raise InputError(
            f"data {source}: an array can't be read ({first_line(error)}); it is damaged, or "
            "holds Python objects"
        ) from error
    checked: dict[Part, Pair] = {}
    for part, (x, y) in chosen.items():
        pixels = checked_pixels(source, x, pairs[part][0])
        checked[part] = pixels, _flat_labels(source, y, pairs[part][1], len(pixels))
    return checked, names


def _real_text(array: NDArray[Any]) -> NDArray[Any]:
    """Return an array, bytes of text as text.

    Raises ValueError for characters that don't exist: numpy makes broken strings of them.
    """
    if array.dtype.kind == "S":
        return array.astype(np.str_)
    if array.dtype.kind == "U" and array.size:
        points = np.ascontiguousarray(array).view(array.dtype.byteorder + "u4")
        if points.max() > sys.maxunicode:
            raise ValueError("text of characters that don't exist")
    return array


def _named(source: str, part: Part, held: Mapping[str, Any]) -> tuple[str, str] | None:
    for images, labels in _PAIRS[part]:
        there = [name for name in (images, labels) if name in held]
        if len(there) == 2:
            return images, labels
        if there:
            missing = labels if images in held else images
            raise InputError(f"data {source}: it holds {there[0]} but no {missing}")
    return None


def checked_pixels(source: str, what: str, images: Any) -> NDArray[np.uint8]:
    """Return uint8 images as (N, H, W) or (N, H, W, C), C of 1 or 3; (N, C, H, W) is turned.

    Raises:
        InputError: another type or shape.
    """
    pixels = np.asarray(images)
    if pixels.dtype != np.uint8:
        raise InputError(f"data {source}: {what} must be uint8, 0 to 255, they are {pixels.dtype}")
    if pixels.ndim == 4 and pixels.shape[-1] not in (1, 3) and pixels.shape[1] in (1, 3):
        pixels = pixels.transpose(0, 2, 3, 1)  # NCHW -> NHWC
    fits = pixels.ndim == 3 or (pixels.ndim == 4 and pixels.shape[-1] in (1, 3))
    if not fits or 0 in pixels.shape[1:]:
        raise InputError(
            f"data {source}: {what} must have the shape (N, H, W, C) or (N, C, H, W) with "
            f"1 or 3 channels, or (N, H, W); they have {pixels.shape}"
        )
    return pixels


def checked_labels(source: str, labels: NDArray[Any], classes: int) -> NDArray[np.int64]:
    """Return class numbers as int64.

    Raises:
        InputError: a number below 0, or beyond the classes that are named.
    """
    if len(labels) and not 0 <= labels.min() <= labels.max() < classes:
        raise InputError(
            f"data {source}: the labels run from {labels.min()} to {labels.max()}, but "
            f"{classes} classes are named, so 0 to {classes - 1} is allowed"
        )
    return labels.astype(np.int64)


def _flat_labels(source: str, what: str, labels: NDArray[Any], count: int) -> NDArray[Any]:
    if labels.shape == (count, 1):
        labels = labels[:, 0]
    if labels.shape != (count,) or labels.dtype.kind not in "iuUS":
        one_hot = labels.ndim == 2 and len(labels) == count
        raise InputError(
            f"data {source}: {what} must be {count} class numbers or names, one per image; they "
            f"are {labels.dtype} of shape {labels.shape}"
            + ("; one-hot labels become numbers by argmax(axis=1)" if one_hot else "")
        )
    return labels
