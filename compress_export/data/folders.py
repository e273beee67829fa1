"""A folder of images, one sub-folder per class (torchvision's ImageFolder)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from compress_export.data.sources import TEST_SHARE, RawData, RawSet
from compress_export.data.splits import stratified_split
from compressor.errors import InputError

SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm"}
)


def open_folder(root: Path, seed: int) -> RawData:
    """Read the names; nothing is decoded.

    `train/` and `test/`, with `val/` for validation where it is there too; `train/` and `val/`,
    which then is the test set; or class folders alone, of which a fifth of each class is put aside
    for testing, chosen by `seed`.

    Raises:
        InputError: no class folders, fewer than two classes, an empty class, or sets that differ
            in their classes.
    """
    if not (root / "train").is_dir():
        return _one_folder(root, seed)
    parts = [name for name in ("test", "val") if (root / name).is_dir()]
    if not parts:
        raise InputError(
            f"data {root}: there is train/ but neither test/ nor val/; add one, or give the folder "
            f"{root / 'train'} to have a part of it put aside for testing"
        )
    classes = _class_names(root / "train")
    sets = {name: _read_classes(root / name, classes) for name in ("train", *parts)}
    return RawData(
        name=root.resolve().name,
        classes=classes,
        train=sets["train"],
        validation=sets["val"] if len(parts) == 2 else None,
        test=sets[parts[0]],
        flip_allowed=_flip_allowed(classes),
        description=f"the folder {root.resolve().name} with train/ and {parts[0]}/",
    )


def _one_folder(root: Path, seed: int) -> RawData:
    classes = _class_names(root)
    whole = _read_classes(root, classes)
    train, test = stratified_split(whole.labels, TEST_SHARE, seed)
    missing = sorted(set(range(len(classes))) - set(whole.labels[test].tolist()))
    if missing:
        raise InputError(
            f"data {root}: class {classes[missing[0]]!r} has one image only; a split into training "
            "and test images needs more"
        )
    return RawData(
        name=root.resolve().name,
        classes=classes,
        train=whole.take(train),
        validation=None,
        test=whole.take(test),
        flip_allowed=_flip_allowed(classes),
        description=f"the folder {root.resolve().name}, a fifth of each class for testing",
    )


def _class_names(folder: Path) -> tuple[str, ...]:
    """Sub-folders sorted as torchvision sorts them, so that trained weights keep their classes."""
    names = tuple(
        sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    )
    if len(names) < 2:
        loose = sum(1 for p in folder.iterdir() if p.suffix.lower() in SUFFIXES)
        held = f"; {loose} images lie in it directly" if loose else ""
        raise InputError(
            f"data {folder}: {_amount(len(names))}{held}; one sub-folder per class is "
            "expected, at least two"
        )
    return names


def _amount(classes: int) -> str:
    return "no class folders" if classes == 0 else "only one class folder"


def _read_classes(folder: Path, classes: tuple[str, ...]) -> RawSet:
    strangers = set(_class_names(folder)) - set(classes)
    if strangers:
        raise InputError(
            f"data {folder}: class {min(strangers)!r} does not occur among the training images"
        )
    images: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        found = _images_below(folder / name)
        if not found:
            raise InputError(
                f"data {folder}: class {name!r} has no images "
                f"({', '.join(sorted(SUFFIXES))} are looked for)"
            )
        images += found
        labels += [label] * len(found)
    return RawSet(images, np.array(labels, dtype=np.int64))


def _images_below(folder: Path) -> list[Path]:
    """At any depth, sorted; hidden files (such as macOS's `._x.jpg`) are no images."""
    if not folder.is_dir():
        return []
    return sorted(
        p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and not p.name.startswith(".")
    )


def _flip_allowed(classes: tuple[str, ...]) -> bool:
    """Classes called 0 to 9 or A to Z are characters, and those change when mirrored."""
    return not all(len(name) == 1 and name.isalnum() for name in classes)
