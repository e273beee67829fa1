"""Which precisions a board's files can have in a format, or why they can't."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

    from boards import Board

NEW_TYPES_OPSET = 21  # first with 4-bit constants and 16-bit QuantizeLinear
FLOATS = ("float32", "float16")
FLOAT_BYTES = 4
GIB = 2**30
TFLITE_BYTES = 2**31 - 1  # offsets in a flatbuffer are signed and have 32 bits


def why_not(board: Board, format: str, precision: str) -> str | None:
    """Return one line that says why the board can't have such files; None where it can."""
    rules = {"onnx": board.quantization.onnx, "tflite": board.quantization.tflite}[format]
    if precision in FLOATS:
        return None
    if rules is None and not precision.endswith("-weights"):  # those compute in float
        return (
            f"board {board.id} has no INT8 rules for {format}; its precisions are "
            f"{', '.join(board.precisions)}, its formats {', '.join(board.formats)}"
        )
    if precision == "int8":
        return None
    return (_why_not_onnx if format == "onnx" else _why_not_tflite)(board, precision)


def may_ship(board: Board, precision: str) -> bool:
    """Return whether files that `why_not` allows may go to the board; others are to compare with.

    Runtimes that compute in float32 take weights of float16, too.
    """
    return precision not in FLOATS or bool({precision, "float32"} & {*board.precisions})


def why_too_large(model: nn.Module, format: str) -> str | None:
    """Return one line that says why a network's weights don't fit into a format's files.

    An integer file is made of the float one, which therefore has to be possible too.
    """
    size_bytes = FLOAT_BYTES * sum(weight.numel() for weight in model.parameters())
    if format != "tflite" or size_bytes <= TFLITE_BYTES:
        return None
    return (
        f"its weights take {size_bytes / GIB:.2f} GiB in float32, and a TFLite file, from which "
        "those of integers are made, holds 2 GiB at most"
    )


def why_not_pixels(board: Board) -> str | None:
    """Return one line that says why the board can't have files that take uint8 pixels."""
    return _integers_alone(board, "files that normalise pixels, which is done in float")


def why_not_float_layers(board: Board, format: str) -> str | None:
    """Return one line that says why no layer of an integer file can stay float for the board."""
    if format == "onnx" and any(runtime.name == "tensorrt" for runtime in board.runtimes):
        return f"board {board.id}: files for TensorRT are held to int8 weights in every layer"
    return _integers_alone(board, "layers left in float")


def _integers_alone(board: Board, wanted: str) -> str | None:
    edge_tpu = any(runtime.name == "edgetpu" for runtime in board.runtimes)
    if board.kind != "mcu" and not edge_tpu:
        return None
    kind = "Edge TPU" if edge_tpu else "microcontroller"
    return f"board {board.id} is for int8 files only: so its {kind} computes, not {wanted}"


def _why_not_onnx(board: Board, precision: str) -> str | None:
    if precision == "int2-weights":
        return "int2-weights is for TFLite files: onnxruntime has no kernels for 2-bit constants"
    if any(runtime.name == "tensorrt" for runtime in board.runtimes):
        return (
            f"board {board.id} runs ONNX files in TensorRT, which quantizes weights and "
            f"activations statically to 8 bits: int8 instead of {precision}"
        )
    opset = board.onnx_opset_max
    wants_new_types = precision in ("int4-weights", "int8-int16")
    if wants_new_types and opset is not None and opset < NEW_TYPES_OPSET:
        return (
            f"{precision} ONNX files need opset {NEW_TYPES_OPSET}, and the oldest runtime that "
            f"board {board.id} may have reads {opset} (onnxruntime 1.18 reads 21: raise "
            "min_version)"
        )
    return None


def _why_not_tflite(board: Board, precision: str) -> str | None:
    runtimes = {runtime.name for runtime in board.runtimes}
    if (reason := _integers_alone(board, precision)) is not None:
        return reason
    if precision in ("int4-weights", "int2-weights") and "litert" not in runtimes:
        return (
            f"{precision} TFLite files need litert, board {board.id} has "
            f"{', '.join(sorted(runtimes))}"
        )
    return None
