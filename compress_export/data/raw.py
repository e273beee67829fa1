"""Images not yet decoded, their classes, and the parts that they come in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from compress_export.data.splits import stratified_split
from compressor.errors import InputError

TEST_SHARE = 0.2

Part = Literal["whole", "train", "val", "test"]


@dataclass(frozen=True)
class RawSet:
    """Images not yet decoded, and their classes.

    Attributes:
        images: paths, uint8 arrays (H, W[, 1 or 3]) or Pillow images.
        labels: class numbers, int64 (N,); from a user's function also anything else, (N, ...).
    """

    images: Sequence[Any]
    labels: NDArray[Any]

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


def from_parts(
    source: str,
    parts: Mapping[Part, RawSet],
    classes: tuple[str, ...],
    seed: int,
    *,
    name: str,
    kind: str,
) -> RawData:
    """Decide which images train, validate and test.

    `train` and `test`, with `val` for validation where it is there too; `train` and `val`, which
    then is the test set; or `whole`, of which a fifth of each class is put aside for testing,
    chosen by `seed`.

    Args:
        source: what the user gave, for messages.
        parts: either `whole`, or `train` and at least one of the others.
        name: short name of the source.
        kind: what it is, for the description ("the folder").

    Raises:
        InputError: a single class, a class too small to be split, or a class name that labels.txt
            can't hold.
    """
    if len(classes) < 2:
        held = f"all images are of {classes[0]!r}" if classes else "there are no images"
        raise InputError(f"data {source}: at least two classes are needed, {held}")
    refuse_unwritable(source, classes)
    validation = None
    if "whole" in parts:
        train, test = _split_off_test(source, parts["whole"], classes, seed)
        description = f"{kind} {name}, a fifth of each class for testing"
    else:
        test_part: Part = "test" if "test" in parts else "val"
        train, test = parts["train"], parts[test_part]
        validation = parts.get("val") if test_part == "test" else None
        description = f"{kind} {name} with train and {test_part}"
    return RawData(
        name=name,
        classes=classes,
        train=train,
        validation=validation,
        test=test,
        flip_allowed=flip_allowed(classes),
        description=description,
    )


def number_classes(source: str, labels: NDArray[Any]) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Class names and int64 labels, (N,).

    Names are sorted, as torchvision's ImageFolder sorts its folders. Integers are class numbers:
    each from 0 to the largest has to occur, since a gap would shift the classes of given weights.

    Raises:
        InputError: integers that leave a number out.
    """
    if labels.dtype.kind not in "iu":
        names, numbers = np.unique(labels.astype(np.str_), return_inverse=True)
        return tuple(str(name) for name in names), numbers.astype(np.int64)
    found = np.unique(labels)
    highest = int(found[-1]) if len(found) else -1
    missing = next((i for i, number in enumerate(found.tolist()) if i != number), None)
    if missing is not None:
        counted = "; are they counted from 1?" if found[0] == 1 else ""
        raise InputError(
            f"data {source}: labels that are integers have to be the class numbers 0 to {highest}, "
            f"but no image has the label {missing}{counted}"
        )
    return tuple(str(number) for number in found), labels.astype(np.int64)


def _split_off_test(
    source: str, whole: RawSet, classes: tuple[str, ...], seed: int
) -> tuple[RawSet, RawSet]:
    counts = np.bincount(whole.labels, minlength=len(classes))
    if counts.min() < 3:
        raise InputError(
            f"data {source}: class {classes[int(counts.argmin())]!r} has {counts.min()} images; "
            "at least 3 are needed, one each for training, validation and test"
        )
    train, test = stratified_split(whole.labels, TEST_SHARE, seed)
    return whole.take(train), whole.take(test)


def refuse_unwritable(source: str, classes: tuple[str, ...]) -> None:
    """labels.txt has one class per line, in UTF-8."""
    for name in classes:
        if name.splitlines() != [name] or name != name.encode("utf-8", "replace").decode("utf-8"):
            raise InputError(
                f"data {source}: the class name {name!r} can't be written as a line of UTF-8 text; "
                "rename it"
            )


def flip_allowed(classes: tuple[str, ...]) -> bool:
    """Classes called 0 to 9 or A to Z are characters, and those change when mirrored."""
    return not all(len(name) == 1 and name.isalnum() for name in classes)
