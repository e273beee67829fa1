"""What the channel graph finds in a network, at which cost, and whether slimming is exact."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from benchmarks.zoo.memory import with_peak
from benchmarks.zoo.stopwatch import Stopwatch
from compressor.graph import ChannelGraph, Keep, channel_graph
from compressor.graph.channel_graph import FIXED_CLASS
from compressor.slim import slim
from compressor.verify import check_slim

EMPTIED = 3
"""Every third removable branch is emptied in the second keep set."""


def analyse(model: nn.Module, example: Tensor) -> tuple[ChannelGraph, dict[str, Any]]:
    """Return the channel graph and what it cost to find.

    Args:
        model: in eval mode.
        example: one image, shape (1, 3, S, S).
    """
    watch = Stopwatch()
    graph, peak_bytes = with_peak(lambda: channel_graph(model, example))
    found = {
        **watch.fields("analysis"),
        "analysis_peak_bytes": peak_bytes,
        "classes": graph.class_count,
        "groups": len(graph.groups),
        "removable_groups": sum(group.removable for group in graph.groups),
        "fixed": reasons(graph.fixed),
        **channel_shares(model, graph),
    }
    return graph, found


def half_kept(graph: ChannelGraph, seed: int) -> Keep:
    """Keep a random half of every group's classes, rounded up: a single giant tie stays whole."""
    rng = np.random.default_rng(seed)
    keep = np.zeros(graph.class_count, dtype=np.bool_)
    for group in graph.groups:
        kept = -(-len(group.classes) // 2)
        keep[rng.choice(group.classes, kept, replace=False)] = True
    return keep


def branches_emptied(graph: ChannelGraph, keep: Keep) -> Keep:
    """The keep set with every third branch that may go as a whole gone."""
    emptied = keep.copy()
    for group in [group for group in graph.groups if group.removable][::EMPTIED]:
        emptied[group.classes] = False
    return emptied


def exactness(model: nn.Module, graph: ChannelGraph, keep: Keep, images: Tensor) -> float:
    """max |masked(x) - slim(x)| / max |masked(x)| in float64; images of shape (N, 3, S, S).

    Raises:
        SlimError: it is more than rounding; the message names the first module that differs.
    """
    return check_slim(model, graph, keep, slim(model, graph, keep), images)


def channel_shares(model: nn.Module, graph: ChannelGraph) -> dict[str, float]:
    """Shares of output channels, of convolutions alone and of linear layers too.

    `prunable` may be dropped: their class isn't fixed, and is not the only one of a group that must
    not be empty. `removed` go where every group keeps half of its ties.
    """
    single = np.zeros(graph.class_count, dtype=np.bool_)
    for group in graph.groups:
        single[group.classes] = len(group.classes) == 1 and not group.removable
    half = half_kept(graph, seed=0)
    free = _share_of_channels(model, graph, ~single)
    gone = _share_of_channels(model, graph, ~half)
    return {
        **{f"prunable_{kind}": share for kind, share in free.items()},
        **{f"removed_{kind}": share for kind, share in gone.items()},
    }


def _share_of_channels(
    model: nn.Module, graph: ChannelGraph, marked: NDArray[np.bool_]
) -> dict[str, float]:
    """Share of output channels whose class is marked: "conv", "all" (linear layers as well)."""
    classes = {layer.module: layer.out_classes for layer in graph.layers}
    total = {"conv": 0, "all": 0}
    count = dict(total)
    for name, module in model.named_modules():
        if not isinstance(module, (_ConvNd, nn.Linear)):
            continue
        width = module.out_features if isinstance(module, nn.Linear) else module.out_channels
        # FIXED_CLASS is -1: fixed channels read the appended last entry.
        known = classes.get(name, np.full(width, FIXED_CLASS))
        found = int(np.append(marked, False)[known].sum())
        for kind in ("all",) if isinstance(module, nn.Linear) else ("all", "conv"):
            total[kind] += width
            count[kind] += found
    return {kind: round(count[kind] / total[kind], 4) if total[kind] else 0.0 for kind in total}


def reasons(fixed: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Why something stays fixed -> how many places, and the first of them."""
    found: dict[str, dict[str, Any]] = {}
    for place, reason in fixed.items():
        entry = found.setdefault(reason, {"places": 0, "first": place})
        entry["places"] += 1
    return found


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
