"""Bytes of a network as files of every form: on disk, and compressed as for a download."""

from __future__ import annotations

import gzip
import lzma
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch import nn

from benchmarks.pruning.files import BOARD
from compress_export.codebook import write_file
from compress_export.exporting import Exports
from compress_export.task import Task

FORMATS = ("onnx", "tflite")
PRECISIONS = ("float32", "int8")
CODEBOOK = "codebook"

Sizes = dict[str, dict[str, int | float]]


def compressed(content: bytes) -> dict[str, int]:
    """Return the bytes as they are, of gzip at its best, and of xz."""
    return {
        "bytes": len(content),
        "gzip_bytes": len(gzip.compress(content, 9, mtime=0)),
        "xz_bytes": len(lzma.compress(content)),
    }


def file_sizes(task: Task, model: nn.Module) -> Sizes:
    """Export a network to all of its files, and measure these.

    Returns:
        "{precision}.{format}" -> `compressed` with the share of validation images on which the file
        agrees with torch; `CODEBOOK` -> the codebook file, which is compressed already.
    """
    found: Sizes = {}
    with TemporaryDirectory() as name:
        folder = Path(name)
        exports = Exports(task, BOARD, FORMATS, BOARD.target_precision, lambda line: None)
        for file in exports.write(model, "slim", folder, PRECISIONS):
            content = (folder / file.path).read_bytes()
            figures: dict[str, Any] = dict(compressed(content))
            figures["agreement_validation"] = file.agreement_validation
            found[f"{file.precision}.{file.format}"] = figures
        codebook = write_file(model, "slim", folder)
        found[CODEBOOK] = {"bytes": codebook.size_bytes, "expanded_bytes": codebook.expanded_bytes}
    return found
