"""Channels of equal range for weights that share one scale.

Nagel et al. 2019, Data-Free Quantization Through Weight Equalization and Bias Correction,
https://arxiv.org/abs/1906.04721, section 4.1: relu(s x) = s relu(x) for s > 0, so that a channel
may leave one layer smaller and be multiplied again by the next. Equation 11 makes the ranges of
both weights equal, each sqrt(r1 r2); in a chain of k layers each gets the k-th root of the product.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from math import prod

import torch
from torch import Tensor, nn

from compressor.quantization.calls import Call, written
from compressor.quantization.layers import Layer, named_layers
from compressor.quantization.neutral import fold_norms
from compressor.quantization.points import folded_norms, readers_of

_HOMOGENEOUS = frozenset(
    """adaptive_avg_pool2d avg_pool2d contiguous dropout dropout2d flatten leaky_relu max_pool2d
    prelu relu""".split()  # noqa: SIM905
)
_POOLS = frozenset({"adaptive_avg_pool2d", "avg_pool2d", "max_pool2d"})
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_MOST_ROUNDS = 50
_CLOSE_ENOUGH = 1e-3

Chain = tuple[Layer, ...]


@torch.no_grad()
def equalize(network: nn.Module, example: Tensor) -> list[tuple[str, ...]]:
    """Give the channels between layers equal ranges of weights, in place.

    The network computes what it did before, up to rounding, in eval mode; its batch norms are
    folded (`neutral.fold_norms`).

    Args:
        example: one input, shape (1, C, H, W).

    Returns:
        Names of the layers of every chain that was equalized; none where no channel passes from
        one layer to the next through homogeneous operations alone (ReLU6 is not one).
    """
    calls, outputs = written(network, example)
    pairs = folded_norms(network, calls, outputs)
    fold_norms(network, pairs)
    found = chains(calls, outputs, named_layers(network, calls, pairs))
    for _ in range(_MOST_ROUNDS):
        if max((_equalize(chain) for chain in found), default=0.0) < _CLOSE_ENOUGH:
            break
    return [tuple(layer.name for layer in chain) for chain in found]


def chains(calls: Sequence[Call], outputs: Collection[int], layers: Sequence[Layer]) -> list[Chain]:
    """Return two layers or more each, whose channels nothing else reads.

    All but the first and the last of a chain are depthwise.

    Args:
        outputs: operations that made the network's outputs.
    """
    readers, by_call = readers_of(calls), {layer.call: layer for layer in layers}
    found: list[Chain] = []
    inner: set[int] = set()
    for layer in layers:
        if layer.call in inner or not isinstance(layer.module, (*_CONVOLUTIONS, nn.Linear)):
            continue
        chain, place, axis = [layer], layer.end, layer.channel_axis
        if axis == 1 and len(calls[place].shape) != layer.weight.dim():
            continue  # a single image, without an axis for several: its channels come first
        while len(readers[place]) == 1 and place not in outputs:
            shape, place = calls[place].shape, readers[place][0]
            follower = by_call.get(place)
            if follower is None:
                if not _passes_channels(calls[place], shape, axis):
                    break
            elif not _takes_channels(follower, chain[-1], shape, axis):
                break
            else:
                chain.append(follower)
                if not _depthwise(follower):
                    break
                inner.add(follower.call)
                place = follower.end
        if len(chain) > 1:
            found.append(tuple(chain))
    return found


def _depthwise(layer: Layer) -> bool:
    module = layer.module
    return (
        isinstance(module, _CONVOLUTIONS)
        and 1 < module.groups == module.in_channels == module.out_channels
    )


def _passes_channels(call: Call, shape: tuple[int, ...], axis: int) -> bool:
    """Whether an operation leaves every channel to itself and on its axis.

    Args:
        shape: of what it reads.
        axis: of the channels there, 1 or -1.
    """
    if call.name not in _HOMOGENEOUS or len(call.sources) != 1:
        return False
    if call.name in _POOLS:
        return axis == 1 and len(shape) == 4  # of three axes all but the first are pooled
    if call.name != "flatten":
        return True
    after = call.shape
    return len(after) > 1 and after[0] == shape[0] and after[axis] == shape[axis]


def _takes_channels(layer: Layer, before: Layer, shape: tuple[int, ...], axis: int) -> bool:
    """Whether every input of a layer is one output channel of the layer before.

    Equal numbers don't say so: there may be as many tokens as channels.

    Args:
        shape: of what the layer reads.
        axis: of the channels there, 1 or -1.
    """
    module, channels = layer.module, before.weight.shape[0]
    if isinstance(module, nn.Linear):
        return module.in_features == channels and (axis == -1 or len(shape) == 2)
    if not isinstance(module, _CONVOLUTIONS) or module.in_channels != channels:
        return False
    if axis != 1 or len(shape) != layer.weight.dim():
        return False
    return module.groups == 1 or _depthwise(layer)


def _equalize(chain: Chain) -> float:
    """Equalize one chain; return the largest change, as a logarithm."""
    ranges = [_ranges(layer, inputs=i > 0) for i, layer in enumerate(chain)]  # each (channels,)
    wanted = prod(ranges[1:], start=ranges[0]) ** (1 / len(chain))
    empty = wanted == 0  # a channel of zeros somewhere: nothing to share out
    factors = [torch.where(empty, 1.0, wanted / r) for r in ranges]
    passed_on = torch.ones_like(wanted)
    for layer, factor in zip(chain[:-1], factors, strict=False):
        weight = layer.weight
        if layer is not chain[0]:  # depthwise: what comes in is larger, undo that first
            weight.div_(_along(passed_on, weight, 0).to(weight))
        passed_on = passed_on * factor
        layer.scale_outputs(passed_on)
    last = chain[-1]
    axis = 0 if _depthwise(last) else 1
    last.weight.div_(_along(passed_on, last.weight, axis).to(last.weight))
    return max(float(factor.log().abs().max()) for factor in factors)


def _ranges(layer: Layer, *, inputs: bool) -> Tensor:
    """Return the largest weight of every input or output channel, float64, shape (channels,)."""
    weight = layer.weight.detach().double().abs()
    axis = 1 if inputs and not _depthwise(layer) else 0
    return weight.amax(dim=[i for i in range(weight.dim()) if i != axis])


def _along(values: Tensor, weight: Tensor, axis: int) -> Tensor:
    shape = [1] * weight.dim()
    shape[axis] = -1
    return values.reshape(shape)
