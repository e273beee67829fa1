"""A folder of images, one sub-folder per class (torchvision's ImageFolder)."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from compress_export.data.raw import Part, RawData, RawSet, from_parts
from compressor.errors import InputError

SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm"}
)
_FOLDERS: dict[Part, tuple[str, ...]] = {
    "train": ("train",),
    "test": ("test",),
    "val": ("val", "valid", "validation"),
}
_LEFT_BY_ARCHIVERS = "__MACOSX"


def open_folder(root: Path, seed: int) -> RawData:
    """Read the names; nothing is decoded. The parts are those of `raw.from_parts`.

    Raises:
        InputError: no class folders, fewer than two classes, an empty class, sets that differ in
            their classes, or a folder that can't be read.
    """
    try:
        return _read_folder(root, seed)
    except OSError as error:
        raise InputError(
            f"data {root}: {error.filename} cannot be read ({error.strerror})"
        ) from error


def _read_folder(root: Path, seed: int) -> RawData:
    parts: dict[Part, RawSet]
    if not (root / "train").is_dir():
        classes = _class_names(root)
        parts = {"whole": _read_classes(root, classes)}
    else:
        folders = {
            part: root / name
            for part, names in _FOLDERS.items()
            for name in names
            if (root / name).is_dir()
        }
        if len(folders) < 2:
            raise InputError(
                f"data {root}: there is train/ but neither test/ nor val/; add one, or give the "
                f"folder {root / 'train'} to have a part of it put aside for testing"
            )
        classes = _class_names(root / "train")
        parts = {part: _read_classes(folder, classes) for part, folder in folders.items()}
    return from_parts(str(root), parts, classes, seed, name=root.resolve().name, kind="the folder")


def _class_names(folder: Path) -> tuple[str, ...]:
    """Sub-folders sorted as torchvision sorts them, so that trained weights keep their classes."""
    names = tuple(sorted(p.name for p in folder.iterdir() if p.is_dir() and not _hidden(p.name)))
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
    """At any depth, sorted, without anything hidden; OSError where a folder can't be read."""

    def refuse(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):  # a class that this part lacks has no images
            raise error

    found: list[Path] = []
    for here, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not _hidden(name)]
        found += [
            Path(here, name)
            for name in files
            if not _hidden(name) and Path(name).suffix.lower() in SUFFIXES
        ]
    return sorted(found)


def _hidden(name: str) -> bool:
    """Such as macOS's `._x.jpg` and Jupyter's `.ipynb_checkpoints/`: copies, or no images."""
    return name.startswith(".") or name == _LEFT_BY_ARCHIVERS
