"""A board descriptor as one frozen value, and the JSON Schema made from it.

``python -m boards.schema`` writes the JSON Schema again after a change.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, model_validator

from boards.parts import (
    Accelerator,
    Budgets,
    Contradictions,
    Count,
    Cpu,
    Format,
    Kind,
    Memory,
    Part,
    Precision,
    Quantization,
    Runtime,
    Source,
    Storage,
    Text,
)
from boards.rules import contradictions

SCHEMA_FILE = "board.schema.json"
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")]


class Board(Part):
    """What a board is, what its runtimes accept, and what a model may cost there."""

    id: Name = Field(description="Short name, as given to --board; the file is ID.yaml.")
    name: Text = Field(description="Full name, with the variant that the figures are for.")
    aliases: tuple[Name, ...] = Field(default=(), description="Other names for --board.")
    kind: Kind = Field(description="linux: processes and files; mcu: bare metal or RTOS.")
    cpu: Cpu = Field(description="Processor.")
    memory: Memory = Field(description="RAM.")
    storage: Storage = Field(description="Flash or disk.")
    accelerator: Accelerator | None = Field(
        default=None, description="GPU or NPU; left out where there is none."
    )
    precisions: tuple[Precision, ...] = Field(
        min_length=1, description="Precisions that are worth exporting for this board."
    )
    formats: tuple[Format, ...] = Field(
        min_length=1, description="File formats made by default; --formats overrides."
    )
    quantization: Quantization = Field(
        default_factory=Quantization, description="INT8 rules per file format."
    )
    channel_steps: dict[Precision, Count] = Field(
        min_length=1,
        description="Kept widths are rounded to multiples of this many channels, per precision: "
        "between two steps a narrower layer is not faster.",
    )
    runtimes: tuple[Runtime, ...] = Field(
        min_length=1, description="Runtimes of the board with their oldest release."
    )
    budgets: Budgets = Field(
        default_factory=Budgets, description="Limits that decide the exit code."
    )
    next_command: Text = Field(
        description="Command to run on the files next; {onnx} and {tflite} stand for them."
    )
    deploy: Text | None = Field(
        default=None, description="Folder on the device where the bundle usually goes."
    )
    sources: tuple[Source, ...] = Field(default=(), description="Where the figures come from.")

    @model_validator(mode="after")
    def _parts_agree(self) -> Board:
        clauses = tuple(contradictions(dict(self)))
        if clauses:
            raise Contradictions(clauses)
        return self

    @property
    def onnx_opset_max(self) -> int | None:
        """Highest ONNX opset that every ONNX runtime of the board reads; None without one."""
        return min((s.opset_max for s in self._onnx_support()), default=None)

    @property
    def onnx_ir_max(self) -> int | None:
        """Highest ONNX IR version that every ONNX runtime of the board reads; None without one."""
        return min((s.ir_max for s in self._onnx_support()), default=None)

    @property
    def target_precision(self) -> Precision:
        """The smallest of the board's precisions: int8, else float16, else float32."""
        order: tuple[Precision, ...] = ("int8", "float16", "float32")
        return next(name for name in order if name in self.precisions)

    def _onnx_support(self) -> list[Any]:
        found = (runtime.onnx_support for runtime in self.runtimes)
        return [support for support in found if support is not None]


def json_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a descriptor, for editors and other tools."""
    schema: Mapping[str, Any] = Board.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def schema_text() -> str:
    """The JSON Schema as it is committed: two spaces, sorted keys, one final newline."""
    return json.dumps(json_schema(), indent=2, sort_keys=True) + "\n"


if __name__ == "__main__":
    (Path(__file__).parent / SCHEMA_FILE).write_text(schema_text(), encoding="utf-8")
