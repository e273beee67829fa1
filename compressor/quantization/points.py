"""Where quantized files round: what operators hand on, and layers' weights and biases.

The rules are those of onnxruntime's and LiteRT's quantizers: an activation is computed together
with the operator before it and rounded once; what only moves numbers keeps their grid. Files for
TensorRT leave out more, by `exporters.onnx_qdq.place_for_tensorrt`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from compressor.quantization.calls import Call

INPUT = -1
"""Number of the network's input among its operations."""

LAYERS = {"conv1d": 0, "conv2d": 0, "conv3d": 0, "linear": 0, "conv_transpose2d": 1}
"""Operations with a weight -> axis of the weight's output channels."""

_MOVERS = frozenset(
    """chunk clone contiguous detach dropout dropout2d expand flatten flip float getitem max_pool1d
    max_pool2d movedim narrow pad permute pixel_shuffle reshape select split squeeze stack swapaxes
    tensor_split to transpose unbind unflatten unsqueeze view""".split()  # noqa: SIM905
)
# Float in ONNX files; in TFLite files, unrolled, every step has a grid of its own.
_RECURRENT = frozenset({"gru", "lstm", "rnn_relu", "rnn_tanh"})
_ACTIVATIONS = frozenset({"relu", "relu6", "hardtanh", "clamp", "clamp_min"})
_BEFORE_ACTIVATIONS = frozenset({*LAYERS, "add", "batch_norm"})
_CONVOLUTIONS = frozenset({"conv1d", "conv2d", "conv3d"})


@dataclass(frozen=True)
class FoldedNorm:
    """A batch norm that files fold into the convolution before it.

    Attributes:
        layer, norm: names of the modules.
        layer_call, norm_call: numbers of their operations.
    """

    layer: str
    norm: str
    layer_call: int
    norm_call: int


def rounded_results(
    calls: Sequence[Call],
    outputs: Iterable[int],
    *,
    outputs_too: bool,
    fused_additions: bool = False,
) -> set[int]:
    """Return the operations whose results are rounded, by number; `INPUT` is among them.

    Args:
        calls: all operations, in order.
        outputs: those that made the network's outputs.
        outputs_too: whether these are rounded.
        fused_additions: as TensorRT does it, an addition is computed together with one convolution
            before it, and an activation with whatever is before.
    """
    readers, ends = readers_of(calls), _ends(calls, outputs)
    points = {INPUT}
    for number, call in enumerate(calls):
        if not call.sources or call.name in _MOVERS | _RECURRENT:
            continue
        if number in ends or not _goes_on(calls, readers[number], call.name, fused_additions):
            points.add(number)
    if fused_additions:
        points -= _added_unrounded(calls, readers, ends)
    return points if outputs_too else points - ends


def rounded_beside(
    calls: Sequence[Call], points: Iterable[int], left: set[int], integer_input: bool
) -> set[int]:
    """Return which results are still rounded where some layers are left in float.

    A result is not, where only such layers have to do with it: one makes it and others read it.

    Args:
        points: as `rounded_results` returns them.
        left: layers in float, by number.
        integer_input: the network's input is of integers, whatever reads it.
    """
    readers = readers_of(calls)
    kept = set()
    for point in points:
        own = integer_input if point == INPUT else _layer_before(calls, point) not in left
        if own or not readers[point] or not left.issuperset(readers[point]):
            kept.add(point)
    return kept


def inputs_of_layers(calls: Sequence[Call]) -> dict[int, int]:
    """Return layer -> the operation that made its input, past those that only move numbers."""
    return {
        number: _maker(calls, call.sources[0])
        for number, call in enumerate(calls)
        if call.name in LAYERS and call.sources
    }


def folded_norms(
    model: nn.Module, calls: Sequence[Call], outputs: Iterable[int]
) -> list[FoldedNorm]:
    """Return the batch norms that a convolution alone feeds, both called once.

    Those without running statistics are left out: what they divide by is another for every batch.
    So are those of a convolution whose answer leaves the network as well.

    Args:
        calls: all operations, in order.
        outputs: those that made the network's outputs.
    """
    owner = {
        id(tensor): name
        for name, module in model.named_modules()
        for tensor in (*module._parameters.values(), *module._buffers.values())
        if tensor is not None
    }
    readers, ends, uses = readers_of(calls), _ends(calls, outputs), defaultdict[int, int](int)
    for call in calls:
        for tensor in call.constants:
            uses[id(tensor)] += 1
    found = []
    for number, call in enumerate(calls):
        if call.name not in LAYERS or LAYERS[call.name] != 0 or len(readers[number]) != 1:
            continue
        if number in ends:
            continue
        norm = calls[readers[number][0]]
        used_once = all(uses[id(t)] == 1 for t in (*call.constants, *norm.constants))
        if norm.name == "batch_norm" and used_once and call.constants and norm.constants:
            names = [owner.get(id(c.constants[0]), "") for c in (call, norm)]
            found.append(FoldedNorm(names[0], names[1], number, readers[number][0]))
    return [
        pair for pair in found if pair.layer and _has_statistics(model.get_submodule(pair.norm))
    ]


def _has_statistics(module: nn.Module) -> bool:
    return isinstance(module, nn.BatchNorm2d) and module.running_var is not None


def _goes_on(
    calls: Sequence[Call], readers: Sequence[int], name: str, fused_additions: bool
) -> bool:
    """True where the only reader is computed together with this operation."""
    if len(readers) != 1:
        return False
    after = calls[readers[0]].name
    if name in LAYERS and after == "batch_norm":
        return True
    if fused_additions:
        return after in _ACTIVATIONS or after == "leaky_relu"
    return name in _BEFORE_ACTIVATIONS and after in _ACTIVATIONS


def _added_unrounded(
    calls: Sequence[Call], readers: Mapping[int, Sequence[int]], ends: set[int]
) -> set[int]:
    """Return, for each addition, the first operand that a convolution makes for it alone.

    The convolution is a file's, with the batch norm that is folded into it.
    """
    alone = {number for number in readers if len(readers[number]) == 1} - ends
    found = {n for n, call in enumerate(calls) if call.name in _CONVOLUTIONS} & alone
    found |= {
        n for n, call in enumerate(calls) if call.name == "batch_norm" and found & {*call.sources}
    } & alone
    freed = set()
    for call in calls:
        if call.name == "add":
            freed.update([source for source in call.sources if source in found][:1])
    return freed


def _layer_before(calls: Sequence[Call], number: int) -> int:
    """Return the layer that a result is computed together with, or the operation itself."""
    while calls[number].name in _ACTIVATIONS | {"batch_norm"} and len(calls[number].sources) == 1:
        number = calls[number].sources[0]
        if number == INPUT:
            break
    return number


def readers_of(calls: Sequence[Call]) -> dict[int, list[int]]:
    """Return operation -> those that read its result, by number."""
    readers = defaultdict[int, list[int]](list)
    for number, call in enumerate(calls):
        for source in call.sources:
            readers[source].append(number)
    return readers


def _ends(calls: Sequence[Call], outputs: Iterable[int]) -> set[int]:
    """Return the operations that made the outputs, past those that only move numbers."""
    return {_maker(calls, number) for number in outputs}


def _maker(calls: Sequence[Call], number: int) -> int:
    """Return the operation that made a result, past those that only move numbers."""
    while number != INPUT and calls[number].name in _MOVERS and calls[number].sources:
        number = calls[number].sources[0]
    return number
