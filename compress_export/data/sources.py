"""Where images come from: the digits, a folder, a list, arrays, torchvision, the user's function.

Nothing is decoded here. A source gives labels and, for each image, something that
`decode.decode_image` understands.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

import numpy as np

from compress_export.data import lists
from compress_export.data.arrays import checked_labels, checked_pixels, holds_arrays, open_arrays
from compress_export.data.folders import open_folder
from compress_export.data.raw import (
    TEST_SHARE,
    RawData,
    RawSet,
    flip_allowed,
    refuse_unwritable,
)
from compress_export.data.splits import are_classes, stratified_split
from compress_export.user_paths import expanded, refuse_unreachable
from compressor.errors import InputError
from compressor.user_code import first_line, is_callable_spec, load_callable

_ARRAYS_SUFFIX = ".npz"
_FILE_SUFFIXES = (*sorted(lists.SUFFIXES), _ARRAYS_SUFFIX)
_DIGITS_SPLIT_SEED = 0  # the digits' test images are the same ones in every run


def open_source(spec: str, seed: int, data_root: Path | None) -> RawData:
    """Resolve `spec`, in this order: `digits`, an existing folder (of images, or of .npy files), a
    .csv, .tsv or .npz file, `package.module:function`, the name of a torchvision dataset under
    `data_root` (by default `data`).

    Raises:
        InputError: nothing of that name, or a source that lacks images or classes.
    """
    from compress_export.data.torchvision_sets import dataset_names, open_torchvision

    if spec == "digits":
        return open_digits()
    path = expanded(spec)
    refuse_unreachable("--data", path)
    if path.is_dir():
        return open_arrays(path, seed) if holds_arrays(path) else open_folder(path, seed)
    if path.is_file():
        return _open_file(spec, path, seed)
    if is_callable_spec(spec):
        return open_function(spec)
    names = dataset_names()
    if spec.lower() in names:
        return open_torchvision(names[spec.lower()], data_root or Path("data"), seed)
    if len(path.parts) > 1 or spec.startswith((".", "~")) or path.suffix in _FILE_SUFFIXES:
        what = "file" if path.suffix in _FILE_SUFFIXES else "folder"
        raise InputError(f"data {spec!r}: no such {what}{_nearest_folder(path)}")
    close = difflib.get_close_matches(spec.lower(), ["digits", *names], n=3, cutoff=0.6)
    hint = f"; did you mean {', '.join(names.get(c, c) for c in close)}?" if close else ""
    raise InputError(
        f"data {spec!r} is neither 'digits', a folder, a .csv or .npz file, "
        f"package.module:function nor a torchvision dataset{hint}"
    )


def _open_file(spec: str, path: Path, seed: int) -> RawData:
    suffix = path.suffix.lower()
    if suffix in lists.SUFFIXES:
        return lists.open_list(path, seed)
    if suffix == _ARRAYS_SUFFIX:
        return open_arrays(path, seed)
    if suffix == ".npy":
        raise InputError(
            f"data {spec!r} is a single array; give the folder that holds x.npy and y.npy"
        )
    raise InputError(
        f"data {spec!r} is a file, but no {', '.join(_FILE_SUFFIXES)}; unpack it and give the "
        "folder"
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

    Images are uint8 (N, H, W, C), (N, C, H, W) with C of 1 or 3, or (N, H, W). Labels are class
    numbers, or floats or arrays of any shape (N, ...) that a loss and a metric of the user's
    understand; the classes then name the outputs.
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
    refuse_unwritable(repr(spec), classes)
    return RawData(
        name=spec,
        classes=classes,
        train=_checked_set(repr(spec), "training", train_images, train_labels, len(classes)),
        validation=None,
        test=_checked_set(repr(spec), "test", test_images, test_labels, len(classes)),
        flip_allowed=flip_allowed(classes),
        description=f"the function {spec}",
    )


def _checked_set(source: str, part: str, images: Any, labels: Any, classes: int) -> RawSet:
    pixels, wanted = checked_pixels(source, f"{part} images", images), np.asarray(labels)
    if wanted.shape[:1] != (len(pixels),) or wanted.dtype.kind not in "iufb":
        raise InputError(
            f"data {source}: {part} labels must be {len(pixels)} integers, one per image (or "
            f"numbers of shape ({len(pixels)}, ...) for a loss and a metric of your own); they are "
            f"{wanted.dtype} of shape {wanted.shape}"
        )
    if not are_classes(wanted):
        free = wanted.astype(np.float32 if wanted.dtype.kind == "f" else np.int64)
        return RawSet(pixels, free)  # type: ignore[arg-type]  # rows are images
    return RawSet(pixels, checked_labels(source, wanted, classes))  # type: ignore[arg-type]  # rows


def _nearest_folder(path: Path) -> str:
    there = next((p for p in path.absolute().parents if p.is_dir()), None)
    return (
        f"; {there} exists and holds no {path.absolute().relative_to(there).parts[0]!r}"
        if there
        else ""
    )
