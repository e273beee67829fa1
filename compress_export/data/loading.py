"""From the name of a source to decoded training, validation and test images."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from compress_export.data.balance import left_out, remarks
from compress_export.data.decode import Broken, Progress
from compress_export.data.image_set import MAX_MEMORY_BYTES, ImageSet, read_image_set
from compress_export.data.raw import RawData, RawSet
from compress_export.data.sources import open_source
from compress_export.data.splits import (
    MAX_VALIDATION_IMAGES,
    VALIDATION_SHARE,
    are_classes,
    strata,
    stratified_split,
)
from compressor.errors import InputError

MAX_BROKEN_SHARE = 0.01
LEAST_TRAINING_IMAGES = 2
"""A batch of one image has no statistics, so an epoch of one has no steps."""


@dataclass(frozen=True)
class ImageData:
    """The images of a job.

    Attributes:
        name: short name of the source.
        classes: class names; a label is an index into them.
        train, validation, test: disjoint sets; validation comes out of the training images unless
            the source has its own.
        skipped: names of the images that could not be decoded.
        flip_allowed: whether a mirrored image keeps its class (not so for digits and signs).
        description: the source in one phrase, for reports.
        remarks: what the user should know of the images, a line each.
    """

    name: str
    classes: tuple[str, ...]
    train: ImageSet
    validation: ImageSet
    test: ImageSet
    skipped: tuple[str, ...]
    flip_allowed: bool
    description: str

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of classes, labels and pixels, as they are trained and judged on.

        Of a set that doesn't fit into memory, the pixels of 1,024 images spread over it.
        """
        digest = hashlib.sha256("\n".join(self.classes).encode("utf-8", "surrogateescape"))
        for part in (self.train, self.validation, self.test):
            part.add_to(digest)
        return digest.hexdigest()

    @property
    def remarks(self) -> tuple[str, ...]:
        broken = (left_out(self.skipped),) if self.skipped else ()
        if not are_classes(self.train.labels):
            return broken
        return broken + remarks(self.classes, self.train.labels, self.test.labels)


def load_data(
    spec: str,
    *,
    input_size: int,
    seed: int = 0,
    strict: bool = False,
    skip_broken: bool = False,
    validation_share: float = VALIDATION_SHARE,
    data_root: Path | None = None,
    progress: Progress | None = None,
) -> ImageData:
    """Open, decode and split.

    Args:
        spec: `digits`, a folder, a .csv or .npz file, `package.module:function` or a torchvision
            dataset.
        input_size: height and width in pixels that every image is brought to.
        seed: of the splits.
        strict: refuse a single broken image; otherwise up to 1 % are left out,
        skip_broken: or any number of them.
        validation_share: of the training images, at most 5,000 images.
        data_root: where torchvision datasets lie, by default `data`.
        progress: called with the number of images decoded and the number of all.

    Raises:
        InputError: no such data, an empty set or class, too few images to train on, too many
            broken ones.
    """
    if input_size < 1:
        raise InputError(f"input size must be at least 1 pixel, got {input_size}")
    if not 0 < validation_share < 1:
        raise InputError(
            f"the validation share must be above 0 and below 1, got {validation_share}"
        )
    raw = open_source(spec, seed, data_root)
    parts = {"training": raw.train, "test": raw.test}
    if raw.validation is not None:
        parts["validation"] = raw.validation
    sets, broken = _read_parts(parts, input_size, progress)
    if not skip_broken:
        _refuse_if_too_broken(raw, broken, sum(len(p.labels) for p in parts.values()), strict)
    for part, image_set in sets.items():
        _check_classes(raw, part, image_set, at_least=2 if part == "training" else 1)
    train, validation = sets["training"], sets.get("validation")
    if validation is None:
        stay, aside = stratified_split(
            strata(train.labels), validation_share, seed, MAX_VALIDATION_IMAGES
        )
        train, validation = train.subset(stay), train.subset(aside)
    if len(train) < LEAST_TRAINING_IMAGES:
        raise InputError(
            f"data {raw.name!r}: {len(train)} training image is left beside {len(validation)} put "
            f"aside for validation; training takes at least {LEAST_TRAINING_IMAGES} at a time"
        )
    return ImageData(
        name=raw.name,
        classes=raw.classes,
        train=train,
        validation=validation,
        test=sets["test"],
        skipped=tuple(b.name for b in broken),
        flip_allowed=raw.flip_allowed,
        description=raw.description,
    )


def _read_parts(
    parts: dict[str, RawSet], size: int, progress: Progress | None
) -> tuple[dict[str, ImageSet], list[Broken]]:
    total = sum(len(part.labels) for part in parts.values())
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        if progress is not None:
            progress(done, total)

    sets: dict[str, ImageSet] = {}
    broken: list[Broken] = []
    memory_left = MAX_MEMORY_BYTES  # training images first: they are read the most often
    for name, part in parts.items():
        sets[name], found = read_image_set(part.images, part.labels, size, advance, memory_left)
        memory_left -= sets[name].held_bytes
        broken += found
    return sets, broken


def _refuse_if_too_broken(raw: RawData, broken: list[Broken], total: int, strict: bool) -> None:
    share = len(broken) / max(total, 1)
    if not broken or (share <= MAX_BROKEN_SHARE and not strict):
        return
    limit = "none is allowed with --strict" if strict else f"at most {MAX_BROKEN_SHARE:.0%} may be"
    way_on = "" if strict else "; --skip-broken leaves them out"
    raise InputError(
        f"data {raw.name!r}: {len(broken)} of {total} images ({share:.1%}) can't be decoded, "
        f"{limit}; the first is {broken[0].name} ({broken[0].reason}){way_on}"
    )


def _check_classes(raw: RawData, part: str, image_set: ImageSet, at_least: int) -> None:
    if not are_classes(image_set.labels):
        if len(image_set) < at_least or not raw.classes:
            raise InputError(
                f"data {raw.name!r}: {len(image_set)} usable {part} images and {len(raw.classes)} "
                f"names of outputs; at least {at_least} and 1 needed"
            )
        return
    if len(raw.classes) < 2:
        raise InputError(f"data {raw.name!r}: at least two classes are needed")
    counts = np.bincount(image_set.labels, minlength=len(raw.classes))
    if counts.min() < at_least:
        label = int(counts.argmin())
        why = ", since one of them is put aside for validation" if at_least > 1 else ""
        raise InputError(
            f"data {raw.name!r}: class {raw.classes[label]!r} has {counts[label]} usable {part} "
            f"images; at least {at_least} needed{why}"
        )
