"""Export with what most tests want: one batch of images for everything, no word said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from boards import load_board
from exporters import Calibration, Exported, export_files


def exported(
    model: nn.Module, folder: Path, images: np.ndarray, *precisions: str, **options: Any
) -> tuple[Exported, ...]:
    """Write a network's files for x86-64 in both formats; options are those of `export_files`.

    Args:
        images: one batch [N, C, H, W] that calibrates and that files are compared with torch on.
    """
    given: dict[str, Any] = {
        "stage": "slim",
        "input_shape": images.shape[1:],
        "calibration": Calibration(lambda: iter([images])),
        "validation": lambda: iter([images]),
        "board": load_board("x86-64"),
        "formats": ("onnx", "tflite"),
        "progress": lambda line: None,
        **options,
    }
    return export_files(model, folder=folder, precisions=precisions, **given)
