"""Google Coral Edge TPU: what its compiler takes, and what it leaves to the CPU.

Sources: coral.ai, "TensorFlow models on the Edge TPU", sections "Model requirements" (all tensors
8-bit, sizes constant, parameters constant, at most the 3 innermost dimensions above 1) and
"Supported operations", whose table was read in copies (Axis, "Supported ops" for ARTPEC-7, and one
of 2019); its rows of later compilers, from Rsqrt on, are partly from memory. Axis, "Optimization
tips": one partition only. google-coral/edgetpu, CHANGES.md: full integer post-training quantization
since compiler 2.0, ExpandDims, Pack, Quantize, Sum and TransposeConv since runtime 13. That linear
layers with a scale per output came to TFLite after the compiler's last release is from memory.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from exporters.inspect_tflite import TfliteGraph
from exporters.profiles.profile import Profile
from exporters.profiles.tflite_rules import (
    integers_only,
    linear_per_channel,
    name_of,
    place,
    specified,
)

Graph = TfliteGraph
Limit = Callable[[Graph, Any], bool]
LARGEST_SOFTMAX = 16_000
MEAN_STEP = 4


def _plain(graph: Graph, operator: Any) -> bool:
    return True


def _without_activation(graph: Graph, operator: Any) -> bool:
    return not operator.builtinOptions.fusedActivationFunction


def _square_dilation(graph: Graph, operator: Any) -> bool:
    options = operator.builtinOptions
    return bool(options.dilationWFactor == options.dilationHFactor)


def _constant(graph: Graph, operator: Any, place_of_input: int) -> np.ndarray:
    index = int(operator.inputs[place_of_input])
    tensor = graph.tensors[index]
    data = graph.model.buffers[tensor.buffer].data
    if data is None:
        return np.zeros(0, np.int32)
    return np.frombuffer(bytes(data), graph.dtype(index)).reshape(tensor.shape)


def _shape(graph: Graph, index: int) -> tuple[int, ...]:
    return tuple(int(size) for size in graph.tensors[int(index)].shape)


def _reduces_no_batch(graph: Graph, operator: Any) -> bool:
    rank = len(_shape(graph, operator.inputs[0]))
    return 0 not in _constant(graph, operator, 1).ravel() % rank


def _mean(graph: Graph, operator: Any) -> bool:
    shape = _shape(graph, operator.inputs[0])
    last_too = len(shape) - 1 in _constant(graph, operator, 1).ravel() % len(shape)
    return _reduces_no_batch(graph, operator) and (not last_too or shape[-1] % MEAN_STEP == 0)


def _pads_no_batch(graph: Graph, operator: Any) -> bool:
    return not _constant(graph, operator, 1)[:1].any()


def _small_softmax(graph: Graph, operator: Any) -> bool:
    shape = _shape(graph, operator.inputs[0])
    return shape[-1] == int(np.prod(shape)) <= LARGEST_SOFTMAX


def _unit_strides(graph: Graph, operator: Any) -> bool:
    options = operator.builtinOptions
    return (_constant(graph, operator, 3) == 1).all() and not (
        options.ellipsisMask or options.newAxisMask
    )


def _default_format(graph: Graph, operator: Any) -> bool:
    return not operator.builtinOptions.weightsFormat


def _packs_no_batch(graph: Graph, operator: Any) -> bool:
    return operator.builtinOptions.axis != 0


def _splits_no_batch(graph: Graph, operator: Any) -> bool:
    return 0 not in _constant(graph, operator, 0).ravel()


LIMITS: dict[str, Limit] = {
    "AVERAGE_POOL_2D": _without_activation,
    "CONCATENATION": _without_activation,
    "CONV_2D": _square_dilation,
    "DEPTHWISE_CONV_2D": _square_dilation,
    "FULLY_CONNECTED": _default_format,
    "MAX_POOL_2D": _without_activation,
    "MEAN": _mean,
    "PACK": _packs_no_batch,
    "PAD": _pads_no_batch,
    "REDUCE_MAX": _reduces_no_batch,
    "REDUCE_MIN": _reduces_no_batch,
    "SOFTMAX": _small_softmax,
    "SPLIT": _splits_no_batch,
    "STRIDED_SLICE": _unit_strides,
    "SUM": _reduces_no_batch,
}
UNLIMITED = (
    *("ADD", "EXPAND_DIMS", "L2_NORMALIZATION", "LOGISTIC", "MAXIMUM", "MINIMUM", "MUL", "PRELU"),
    *("QUANTIZE", "RELU", "RELU6", "RELU_N1_TO_1", "RESHAPE", "RESIZE_BILINEAR"),
    *("RESIZE_NEAREST_NEIGHBOR", "RSQRT", "SLICE", "SPACE_TO_DEPTH", "SQUARED_DIFFERENCE"),
    *("SQUEEZE", "SUB", "TANH", "TRANSPOSE", "TRANSPOSE_CONV", "UNIDIRECTIONAL_SEQUENCE_LSTM"),
)
SUPPORTED: dict[str, Limit] = {**dict.fromkeys(UNLIMITED, _plain), **LIMITS}


def profile(*, per_channel_linear: bool) -> Profile:
    """The profile; `per_channel_linear` as the descriptor says it of the board's runtime."""
    check = partial(violations, per_channel_linear=per_channel_linear)
    return Profile("edge-tpu", check, remarks, benchable=False)


def violations(path: Path, per_channel_linear: bool = False) -> list[str]:
    """What makes the compiler refuse the file, or the runtime compute something else."""
    graph = TfliteGraph(path)
    lines = [*integers_only(graph), *specified(graph), *_dimensions(graph)]
    return lines if per_channel_linear else [*lines, *linear_per_channel(graph)]


def remarks(path: Path) -> list[str]:
    """Operators that the compiler leaves to the CPU; it takes the file all the same.

    It makes one partition: what follows the first of them runs on the CPU, too.
    """
    graph = TfliteGraph(path)
    left = [operator for operator in graph.operators if not _mapped(graph, operator)]
    if not left:
        return []
    counts = Counter(graph.op_name(operator) for operator in left)
    listed = ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
    first = place(graph, left[0])
    return [f"the Edge TPU compiler leaves {listed} to the CPU, and all that follows {first}"]


def _mapped(graph: Graph, operator: Any) -> bool:
    limit = SUPPORTED.get(graph.op_name(operator))
    return limit is not None and limit(graph, operator)


def _dimensions(graph: Graph) -> Iterator[str]:
    for index in range(len(graph.tensors)):
        shape = _shape(graph, index)
        if not graph.is_constant(index) and any(size != 1 for size in shape[:-3]):
            yield f"{name_of(graph, index)} has more than 3 dimensions above 1"
