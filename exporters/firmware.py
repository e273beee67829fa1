"""What firmware needs of a TFLite file: the bytes as a C array, its constants, and a card."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exporters.artifacts import Exported, TensorSpec
from exporters.errors import ExportError
from exporters.firmware_texts import CARD, HEADER, SOURCE

if TYPE_CHECKING:
    from boards import Board

HEADER_NAME, SOURCE_NAME, CARD_NAME = "model_data.h", "model_data.cc", "FIRMWARE.md"
KIB, MIB = 1024, 2**20
_BYTES_A_LINE = 16
_ROOM = 2
"""Times the lower bound of the activations, where no arena was measured."""

# Methods of MicroMutableOpResolver that don't follow from the operator's name.
_METHODS = {"BATCH_MATMUL": "BatchMatMul", "CUMSUM": "CumSum", "PADV2": "PadV2"}


def write_firmware(
    folder: Path, *, board: Board, arena: Mapping[str, Any] | None = None
) -> tuple[Path, ...]:
    """Write model_data.h, model_data.cc and FIRMWARE.md for the TFLite file of a bundle.

    Args:
        folder: a bundle with its manifest.
        arena: head_bytes, tail_bytes, total_bytes, smallest_bytes and runtime as measured; None
            where it wasn't, and an estimate is written and called so.

    Returns:
        The paths written; none where the bundle has no TFLite file.

    Raises:
        ExportError: the bundle has several TFLite files, and firmware holds one.
    """
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    files = [Exported.from_json(e) for e in manifest["files"] if e["format"] == "tflite"]
    if len(files) > 1:
        names = ", ".join(file.name for file in files)
        raise ExportError(f"{folder}: firmware holds one TFLite file, not {names}")
    if not files:
        return ()
    (file,) = files
    content = (folder / file.path).read_bytes()
    arena_bytes = _arena_constant(file, arena)
    texts = {
        HEADER_NAME: _header(file, board, len(content), arena_bytes, measured=arena is not None),
        SOURCE_NAME: SOURCE.format(path=file.path, header=HEADER_NAME, rows=_rows(content)),
        CARD_NAME: _card(folder, file, board, manifest, arena, arena_bytes),
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    return tuple(folder / name for name in texts)


def resolver_method(operator: str) -> str:
    """MicroMutableOpResolver's method for an operator: CONV_2D -> AddConv2D."""
    words = (word.capitalize() for word in operator.split("_"))
    camel = "".join("2D" if word == "2d" else word for word in words)
    return "Add" + _METHODS.get(operator, camel)


def _arena_constant(file: Exported, arena: Mapping[str, Any] | None) -> int:
    """Whole KiB: the measured smallest one, or a guess where nothing was measured."""
    least = _ROOM * file.activation_bytes if arena is None else int(arena["smallest_bytes"])
    return -(-least // KIB) * KIB


def _header(
    file: Exported, board: Board, size_bytes: int, arena_bytes: int, *, measured: bool
) -> str:
    return HEADER.format(
        path=file.path,
        board=board.name,
        sha256=file.sha256,
        size=size_bytes,
        arena=arena_bytes,
        origin="measured" if measured else "an estimate, not measured",
        input=_constants("INPUT", file.input),
        output=_constants("OUTPUT", file.output),
    )


def _constants(prefix: str, spec: TensorSpec) -> str:
    lines = [f"#define MODEL_{prefix}_VALUES {_count(spec)}"]
    if spec.scale is not None:
        lines.append(f"#define MODEL_{prefix}_SCALE {spec.scale!r}f")
        lines.append(f"#define MODEL_{prefix}_ZERO_POINT ({spec.zero_point})")
    return "\n".join(lines)


def _count(spec: TensorSpec) -> int:
    count = 1
    for size in spec.shape:
        count *= abs(size)
    return count


def _rows(content: bytes) -> str:
    return "\n".join(
        "    " + " ".join(f"0x{byte:02x}," for byte in content[start : start + _BYTES_A_LINE])
        for start in range(0, len(content), _BYTES_A_LINE)
    )


def _card(
    folder: Path,
    file: Exported,
    board: Board,
    manifest: Mapping[str, Any],
    arena: Mapping[str, Any] | None,
    arena_bytes: int,
) -> str:
    operators = _operators(folder / file.path)
    prepare = manifest["preprocessing"]
    return CARD.format(
        model=manifest["model"],
        board=board.name,
        path=file.path,
        size=file.size_bytes,
        flash=_share(file.size_bytes, board.storage.usable_mib),
        ram=_share(arena_bytes, board.memory.usable_mib),
        arena=arena_bytes,
        origin="\n".join(_origin(file, arena)),
        count=len(operators),
        adds="\n".join(f"resolver.{resolver_method(name)}();" for name in operators),
        tensors="\n".join(_tensor_row(n, s) for n, s in (("input", file.input), *_outputs(file))),
        mean=_numbers(prepare["mean"]),
        std=_numbers(prepare["std"]),
        pixel_scale=prepare["scale"],
        order=prepare["channel_order"],
    )


def _origin(file: Exported, arena: Mapping[str, Any] | None) -> Iterator[str]:
    if arena is None:
        yield f"Not measured: {_ROOM} times the activations' lower bound of {file.activation_bytes}"
        yield "bytes. With tflite-micro installed, compress-export measures it, later with"
        yield "`--board BOARD --stages bench`."
        return
    yield f"Measured in {arena['runtime']} on a 64-bit machine: smallest {arena['smallest_bytes']}"
    yield f"bytes; after a run head {arena['head_bytes']} (activations, shared over time) and tail"
    yield f"{arena['tail_bytes']} (tensor and operator records, smaller with 32-bit pointers)."


def _outputs(file: Exported) -> Iterator[tuple[str, TensorSpec]]:
    for number, spec in enumerate((file.output, *file.more_outputs)):
        yield f"output {number}", spec


def _tensor_row(name: str, spec: TensorSpec) -> str:
    shape = " x ".join(str(abs(size)) for size in spec.shape)
    return f"| {name} | {spec.dtype} | {shape} | {spec.scale} | {spec.zero_point} |"


def _operators(path: Path) -> tuple[str, ...]:
    from exporters.inspect_tflite import TfliteGraph

    graph = TfliteGraph(path)
    return tuple(dict.fromkeys(graph.op_name(operator) for operator in graph.operators))


def _share(size_bytes: int, usable_mib: float) -> str:
    return f"{size_bytes / KIB:.1f} KiB of {usable_mib * KIB:g} KiB usable"


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)
