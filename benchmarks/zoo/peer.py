"""Torch-Pruning 1.6.1 on the same network: does it run, is its pruned network the masked one?

Used as its README shows: `BasePruner` with group magnitudes, a pruning ratio of 0.5 and the
classifier ignored, nothing tuned for a network. Source: Fang et al. 2023, DepGraph
(https://arxiv.org/abs/2301.12900), and https://github.com/VainF/Torch-Pruning.

The masked network is the whole one whose layers see zeros in the input channels that the pruner
took from them, and whose norms over several channels (LayerNorm, GroupNorm) leave the dropped ones
out of their statistics, as our own masked networks do.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch_pruning as tp  # type: ignore[import-untyped]
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.conv import _ConvNd

from benchmarks.zoo.memory import with_peak
from benchmarks.zoo.models import CLASSES
from benchmarks.zoo.stopwatch import Stopwatch

RATIO = 0.5

NORMS = (nn.LayerNorm, nn.GroupNorm)

Removed = dict[nn.Module, NDArray[np.int64]]


def prune_with_peer(model: nn.Module, images: Tensor) -> dict[str, Any]:
    """Analyse and prune a copy of a network; what it took and whether the result is exact.

    Args:
        model: in eval mode.
        images: shape (N, 3, S, S).

    Raises:
        Exception: whatever Torch-Pruning or its pruned network raises.
    """
    pruned, x = copy.deepcopy(model).double(), images.double()
    with torch.no_grad():
        names = {module: name for name, module in pruned.named_modules()}
        whole = _channels(pruned)
    watch = Stopwatch()
    pruner, peak_bytes = with_peak(lambda: make_pruner(pruned, x[:1]))
    seconds = watch.fields("analysis")
    watch = Stopwatch()
    removed = prune(pruner)
    seconds |= watch.fields("prune")
    with torch.no_grad():
        found = pruned(x)
        expected = masked(model, {names[module]: gone for module, gone in removed.items()}, x)
    return {
        **seconds,
        "analysis_peak_bytes": peak_bytes,
        "removed_conv": round(1 - _channels(pruned) / whole, 4) if whole else 0.0,
        "error": float((found - expected).abs().max() / expected.abs().max()),
    }


def make_pruner(model: nn.Module, example: Tensor) -> Any:
    """Its dependency graph and pruner; the classifier is found by its width, as in its examples."""
    classifiers = [
        module
        for module in model.modules()
        if (isinstance(module, nn.Linear) and module.out_features == CLASSES)
        or (isinstance(module, _ConvNd) and module.out_channels == CLASSES)
    ]
    return tp.pruner.BasePruner(
        model,
        example,
        importance=tp.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=RATIO,
        ignored_layers=classifiers,
    )


def prune(pruner: Any) -> Removed:
    """Prune, and return the channels of the whole network that each layer and norm lost."""
    left: Removed = {}
    gone: dict[nn.Module, list[int]] = defaultdict(list)
    for group in pruner.step(interactive=True):
        for dependency, indices in group:
            module = dependency.target.module
            reads = pruner.DG.is_in_channel_pruning_fn(dependency.handler)
            if isinstance(module, NORMS) or (_mixes(module) and reads):
                channels = left.setdefault(module, np.arange(_width(module)))
                gone[module] += channels[indices].tolist()
                left[module] = np.delete(channels, indices)
        group.prune()
    return {module: np.array(sorted(channels)) for module, channels in gone.items()}


def masked(model: nn.Module, removed: Mapping[str, NDArray[np.int64]], x: Tensor) -> Tensor:
    """The outputs of the whole network when layers see zeros in some input channels."""
    network = copy.deepcopy(model).double()
    for name, channels in removed.items():
        layer, dropped = network.get_submodule(name), torch.from_numpy(channels)
        if isinstance(layer, NORMS):
            layer.register_forward_hook(_over_the_others(dropped))
        else:
            axis = -1 if isinstance(layer, nn.Linear) else 1
            layer.register_forward_pre_hook(_zeroing(dropped, axis))
    with torch.no_grad():
        outputs: Tensor = network(x)
    return outputs


def _zeroing(channels: Tensor, axis: int) -> Any:
    def zero(_module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return (inputs[0].index_fill(axis, channels, 0.0), *inputs[1:])

    return zero


def _over_the_others(dropped: Tensor) -> Any:
    """A norm's result with the statistics of the channels that aren't dropped; 0 for those."""

    def normalize(norm: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        assert isinstance(norm, NORMS)
        width = _width(norm)
        first = isinstance(norm, nn.GroupNorm) or output.shape[-1] != width
        axis = 1 if first else output.dim() - 1
        kept = torch.tensor(sorted(set(range(width)) - set(dropped.tolist())))
        x = inputs[0].index_select(axis, kept)
        scale, shift = (None if p is None else p[kept] for p in (norm.weight, norm.bias))
        if isinstance(norm, nn.GroupNorm):
            values = F.group_norm(x, norm.num_groups, scale, shift, norm.eps)
        else:
            last = x.movedim(axis, -1)
            values = F.layer_norm(last, (len(kept),), scale, shift, norm.eps).movedim(-1, axis)
        return torch.zeros_like(output).index_copy(axis, kept, values)

    return normalize


def _mixes(module: nn.Module) -> bool:
    if isinstance(module, _ConvNd):
        return module.groups == 1 or module.groups != module.out_channels
    return isinstance(module, nn.Linear)


def _width(module: nn.Module) -> int:
    if isinstance(module, nn.LayerNorm):
        return int(module.normalized_shape[-1])
    if isinstance(module, nn.GroupNorm):
        return module.num_channels
    return module.in_features if isinstance(module, nn.Linear) else int(module.in_channels)  # type: ignore[arg-type]


def _channels(model: nn.Module) -> int:
    """Output channels of all convolutions."""
    return sum(m.out_channels for m in model.modules() if isinstance(m, _ConvNd))
