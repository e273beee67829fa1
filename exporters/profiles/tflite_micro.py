"""TensorFlow Lite Micro on a microcontroller.

Sources: tflite-micro, tensorflow/lite/micro/micro_mutable_op_resolver.h and
python/tflite_micro/python_ops_resolver.cc (operators with a kernel);
kernels/fully_connected_common.cc (per-channel scales with int8 data only) and pull requests 2602
and 2673: linear layers with a scale per output were computed wrongly until May 2024, refused
until September 2024, and run since then in the reference and CMSIS-NN kernels; esp-nn issue 34 and
esp-tflite-micro pull request 109 report wrong results of Espressif's own kernels.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from exporters.inspect_tflite import TfliteGraph
from exporters.profiles.profile import Profile
from exporters.profiles.tflite_rules import (
    integers_only,
    linear_per_channel,
    place,
    specified,
)

# Of the resolver's list those without state, strings, signal processing and control flow.
OPERATORS = frozenset((
    "ABS", "ADD", "ADD_N", "ARG_MAX", "ARG_MIN", "AVERAGE_POOL_2D", "BATCH_TO_SPACE_ND",
    "BROADCAST_ARGS", "BROADCAST_TO", "CAST", "CEIL", "CONCATENATION", "CONV_2D", "COS",
    "CUMSUM", "DEPTH_TO_SPACE", "DEPTHWISE_CONV_2D", "DEQUANTIZE", "DIV", "ELU", "EQUAL",
    "EXP", "EXPAND_DIMS", "FILL", "FLOOR", "FLOOR_DIV", "FLOOR_MOD", "FULLY_CONNECTED",
    "GATHER", "GATHER_ND", "GREATER", "GREATER_EQUAL", "HARD_SWISH", "L2_NORMALIZATION",
    "L2_POOL_2D", "LEAKY_RELU", "LESS", "LESS_EQUAL", "LOG", "LOG_SOFTMAX", "LOGICAL_AND",
    "LOGICAL_NOT", "LOGICAL_OR", "LOGISTIC", "MAX_POOL_2D", "MAXIMUM", "MEAN", "MINIMUM",
    "MIRROR_PAD", "MUL", "NEG", "NOT_EQUAL", "PACK", "PAD", "PADV2", "PRELU", "QUANTIZE",
    "REDUCE_MAX", "RELU", "RELU6", "RESHAPE", "RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR",
    "ROUND", "RSQRT", "SELECT_V2", "SHAPE", "SIN", "SLICE", "SOFTMAX", "SPACE_TO_BATCH_ND",
    "SPACE_TO_DEPTH", "SPLIT", "SPLIT_V", "SQRT", "SQUARE", "SQUARED_DIFFERENCE", "SQUEEZE",
    "STRIDED_SLICE", "SUB", "SUM", "SVDF", "TANH", "TRANSPOSE", "TRANSPOSE_CONV", "UNPACK",
    "ZEROS_LIKE",
))  # fmt: skip


def profile(*, per_channel_linear: bool) -> Profile:
    """The profile; `per_channel_linear` as the descriptor says it of the board's copy."""
    check = partial(violations, per_channel_linear=per_channel_linear)
    return Profile("tflite-micro", check, benchable=False)


def violations(path: Path, per_channel_linear: bool = False) -> list[str]:
    """Integers only, fixed shapes, operators that have a kernel, scales as specified."""
    graph = TfliteGraph(path)
    lines = [*integers_only(graph), *specified(graph), *_without_kernel(graph)]
    return lines if per_channel_linear else [*lines, *linear_per_channel(graph)]


def _without_kernel(graph: TfliteGraph) -> Iterator[str]:
    for operator in graph.operators:
        if graph.op_name(operator) not in OPERATORS:
            yield f"{place(graph, operator)}: there is no such kernel"
