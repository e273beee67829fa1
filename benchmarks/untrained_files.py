"""Model files of networks that only time is measured of: random images calibrate them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from torch import nn

from boards import Board
from exporters import Calibration, export_files

_IMAGES = 4


def export_untrained(
    model: nn.Module,
    folder: Path,
    board: Board,
    formats: Sequence[str],
    precisions: Sequence[str],
    *,
    side: int,
) -> None:
    """Write `baseline.PRECISION.FORMAT` files of a network of RGB images, `side` pixels square."""

    def images() -> Iterator[np.ndarray]:
        shape = (_IMAGES, 3, side, side)
        yield np.random.default_rng(0).standard_normal(shape).astype(np.float32)

    export_files(
        model,
        stage="baseline",
        folder=folder,
        input_shape=(3, side, side),
        calibration=Calibration(images),
        validation=images,
        board=board,
        formats=formats,
        precisions=precisions,
        progress=lambda line: None,
    )
