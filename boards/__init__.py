"""Board descriptors: what a board is, what its runtimes accept and what a model may cost there.

A leaf package: it needs pydantic and PyYAML and nothing else, so reading a board never loads a
training framework or a runtime. The names below are imported on first use, which keeps a command's
``--help`` fast.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from boards.loader import load_board, shipped_boards
    from boards.mistakes import BoardError
    from boards.parts import (
        Accelerator,
        Budgets,
        Cpu,
        Memory,
        OnnxRules,
        Quantization,
        Runtime,
        Source,
        Storage,
        TfliteRules,
    )
    from boards.schema import Board, json_schema

__all__ = [
    "Accelerator",
    "Board",
    "BoardError",
    "Budgets",
    "Cpu",
    "Memory",
    "OnnxRules",
    "Quantization",
    "Runtime",
    "Source",
    "Storage",
    "TfliteRules",
    "json_schema",
    "load_board",
    "shipped_boards",
]

_HOMES = {
    "Board": "boards.schema",
    "BoardError": "boards.mistakes",
    "json_schema": "boards.schema",
    "load_board": "boards.loader",
    "shipped_boards": "boards.loader",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES.get(name, "boards.parts")), name)
