"""A slim network through the exporters, and its files through both runtimes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from benchmarks.zoo.stopwatch import Stopwatch
from boards import load_board
from exporters import Calibration, Exported, export_files
from exporters.float_operators import float_operators
from runtime_bench.manifest import ModelFile
from runtime_bench.runtimes import load_runner

BOARD = "x86-64"
BATCH = 16
PRECISIONS = ("float32", "int8")

Images = NDArray[np.float32]


def convert(
    model: nn.Module, format: str, calibration: Images, images: Images, folder: Path
) -> dict[str, Any]:
    """Write a network's float and INT8 file in one format, run the INT8 file and compare.

    Args:
        model: in eval mode, [N, 3, S, S] -> [N, classes].
        format: "onnx" or "tflite".
        calibration, images: shape (N, 3, S, S); the second to compare on.

    Raises:
        ExportError: a tool failed, or the float file isn't what the network computes.
    """
    notices: list[str] = []
    watch = Stopwatch()
    exported = export_files(
        model,
        stage="slim",
        folder=folder,
        input_shape=(images.shape[1], images.shape[2], images.shape[3]),
        calibration=Calibration(lambda: iter(_batches(calibration))),
        validation=lambda: iter(_batches(images)),
        board=load_board(BOARD),
        formats=(format,),
        precisions=PRECISIONS,
        progress=lambda text: notices.append(text) if text.startswith("notice") else None,
    )
    seconds = watch.fields("conversion")
    sizes = {file.precision: file.size_bytes for file in exported}
    int8 = next(file for file in exported if file.precision == "int8")
    return {
        **seconds,
        "float_bytes": sizes["float32"],
        "int8_bytes": sizes["int8"],
        "float_layers": len(int8.float_layers),
        "float_operators": float_operators(folder / int8.path),
        "fused_integer_convs": int8.fused_integer_convs,
        "convs": int8.convs,
        "notices": notices,
        **compare(_torch_outputs(model, images), run(int8, folder, images)),
    }


def run(file: Exported, folder: Path, images: Images) -> Images:
    """A file's outputs in the product's own runner, shape (N, classes)."""
    runner = load_runner(folder / file.path, ModelFile.from_json(file.to_json(), "zoo"), threads=1)
    size = BATCH if runner.free_batch else 1
    return np.concatenate([runner.run(batch) for batch in _batches(images, size)])


def compare(expected: Images, found: Images) -> dict[str, float]:
    """Agreement of the largest output, and correlation of all outputs; both shape (N, classes).

    The mean of each output over the images is taken off first: an output that never changes would
    correlate without following the image.
    """
    centred = [(values - values.mean(0)).ravel() for values in (expected, found)]
    norm = float(np.linalg.norm(centred[0]) * np.linalg.norm(centred[1]))
    return {
        "agreement": round(float((expected.argmax(1) == found.argmax(1)).mean()), 4),
        "correlation": round(float(centred[0] @ centred[1]) / norm, 4) if norm else 0.0,
    }


def _torch_outputs(model: nn.Module, images: Images) -> Images:
    with torch.inference_mode():
        parts = [model(torch.from_numpy(batch)).numpy() for batch in _batches(images)]
    return np.concatenate(parts)


def _batches(images: Images, size: int = BATCH) -> list[Images]:
    return [images[start : start + size] for start in range(0, len(images), size)]
