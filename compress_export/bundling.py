"""What a bundle holds beside its model files: the bench, images to try it on, firmware, sums."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from boards import Board

SAMPLES = "samples.npz"


def complete_bundle(
    bundle: Path,
    board: Board,
    *,
    arena: Mapping[str, Any] | None = None,
    samples: Path | None = None,
    count: int = 0,
    seed: int = 0,
) -> None:
    """Add all that follows from a bundle's model files and from what was measured of them.

    May be repeated, when more is known; SHA256SUMS is written last.

    Args:
        arena: that of the TFLite file in TensorFlow Lite Micro, see `runtime_bench.micro.Arena`.
        samples: all test images, as `runtime_bench.samples` reads them; of these `count` are
            packed, drawn with `seed`.
    """
    from exporters import write_firmware, write_sums
    from runtime_bench.archive import ARCHIVE_NAME, write_archive

    write_archive(bundle / ARCHIVE_NAME)
    if samples is not None and count:
        pack_samples(samples, bundle / SAMPLES, count, seed)
    if board.kind == "mcu":
        write_firmware(bundle, board=board, arena=arena)
    write_sums(bundle)


def pack_samples(source: Path, target: Path, count: int, seed: int) -> None:
    """Write some of the samples of `source` as a compressed file."""
    with np.load(source, allow_pickle=False) as arrays:
        chosen = stratified(arrays["labels"], count, seed)
        np.savez_compressed(target, **{name: arrays[name][chosen] for name in arrays.files})


def stratified(labels: NDArray[np.int64], count: int, seed: int) -> NDArray[np.int64]:
    """Return indices of `count` samples, all where there are no more, in ascending order.

    Each class has its share, rounded down; what is left goes to the classes with the largest
    remainders (Hamilton's method).

    Args:
        labels: (N,).
    """
    if count >= len(labels):
        return np.arange(len(labels))
    classes, sizes = np.unique(labels, return_counts=True)
    exact = sizes * count / len(labels)
    quotas = np.floor(exact).astype(int)
    first = np.argsort(quotas - exact, kind="stable")  # the largest remainder first
    quotas[first[: count - quotas.sum()]] += 1
    generator = np.random.default_rng(seed)
    chosen = [
        generator.choice(np.flatnonzero(labels == label), quota, replace=False)
        for label, quota in zip(classes, quotas, strict=True)
    ]
    return np.sort(np.concatenate(chosen))
