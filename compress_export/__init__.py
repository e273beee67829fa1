"""Command line, pipeline and Python API: the one package that knows every stage.

`compress` runs the whole job, `open_job`, `train_baseline`, `prune`, `export`, `measure` and
`publish` are its stages; docs/api.md shows both. Nothing heavy is imported before it is asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from boards import BoardError, load_board
    from compress_export.errors import UsageError
    from compress_export.exit_codes import ExitCode
    from compress_export.export_stage import export
    from compress_export.job import Job, open_job
    from compress_export.options import JobOptions
    from compress_export.pipeline import (
        Result,
        compress,
        measure,
        prune,
        publish,
        share_weights,
        train_baseline,
        train_quantized,
    )
    from compress_export.task import Task, load_task
    from compressor.errors import InputError
    from compressor.saved import load_model

__version__ = "0.1.0"

__all__ = [
    "BoardError",
    "ExitCode",
    "InputError",
    "Job",
    "JobOptions",
    "Result",
    "Task",
    "UsageError",
    "compress",
    "export",
    "load_board",
    "load_model",
    "load_task",
    "measure",
    "open_job",
    "prune",
    "publish",
    "share_weights",
    "train_baseline",
    "train_quantized",
]

_HOMES = {
    "boards": ("BoardError", "load_board"),
    "compress_export.errors": ("UsageError",),
    "compress_export.exit_codes": ("ExitCode",),
    "compress_export.export_stage": ("export",),
    "compress_export.job": ("Job", "open_job"),
    "compress_export.options": ("JobOptions",),
    "compress_export.pipeline": (
        "Result", "compress", "measure", "prune", "publish", "share_weights",
        "train_baseline", "train_quantized",
    ),
    "compress_export.task": ("Task", "load_task"),
    "compressor.errors": ("InputError",),
    "compressor.saved": ("load_model",),
}  # fmt: skip


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(module), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
