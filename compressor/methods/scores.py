"""How important each class of channels is, by its weights or by what the loss does without it.

A class may stand for channels of several layers (a residual stream); its score joins all slices of
the weights that make or normalize them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from compressor.decore.taylor import taylor_scores
from compressor.errors import InputError
from compressor.graph import ChannelGraph
from compressor.graph.channel_graph import AxisSlice
from compressor.methods.method import PruneTask


def weight_norms(model: nn.Module, graph: ChannelGraph, order: int) -> Tensor:
    """Return the mean magnitude of the weights that make each class, shape (classes,), float64.

    Li et al. 2017 (https://arxiv.org/abs/1608.08710) rank filters by their L1 norm. Here it is the
    mean of |w| (order 1) or the root mean square (order 2), so that layers with filters of other
    sizes compare.
    """
    total = torch.zeros(graph.class_count, dtype=torch.float64)
    count = torch.zeros_like(total)
    for cut, weight in _producing_weights(model, graph):
        rows = weight.detach().double().cpu().movedim(cut.axis, 0).flatten(1).abs().pow(order)
        _add(total, cut, rows.sum(dim=1))
        _add(count, cut, torch.full((len(rows),), float(rows.shape[1]), dtype=torch.float64))
    return (total / count.clamp_min(1)).pow(1 / order)


def norm_scales(model: nn.Module, graph: ChannelGraph) -> Tensor:
    """Return the mean |scale| of the batch norms of each class, shape (classes,), float64.

    Liu et al. 2017, network slimming (https://arxiv.org/abs/1708.06519). Classes without a batch
    norm get the mean of all others, so that they are neither first nor last to go.

    Raises:
        InputError: there is no batch norm with a scale.
    """
    total = torch.zeros(graph.class_count, dtype=torch.float64)
    count = torch.zeros_like(total)
    for cut, weight in norm_slices(model, graph):
        scale = weight.detach().double().cpu().abs()
        _add(total, cut, scale)
        _add(count, cut, torch.ones_like(scale))
    seen = count > 0
    scores = total / count.clamp_min(1)
    if not bool(seen.any()):
        raise InputError(
            "the network has no batch norm with a scale, which --method bn-scale and bn-sparse go "
            "by; choose another method, such as decore or taylor"
        )
    return torch.where(seen, scores, scores[seen].mean())


def norm_slices(model: nn.Module, graph: ChannelGraph) -> list[tuple[AxisSlice, nn.Parameter]]:
    """Return the scales of all batch norms that are cut, each of shape (channels,)."""
    return [
        (cut, module.weight)
        for cut in graph.slices
        if cut.tensor == "weight"
        and isinstance(module := model.get_submodule(cut.module), nn.modules.batchnorm._BatchNorm)
    ]


def taylor_prior(task: PruneTask, with_means: bool) -> Tensor:
    """Squared first-order change of the loss, shape (start.graph.class_count,), `taylor_scores`."""
    start = task.start
    return taylor_scores(
        start.model,
        start.graph,
        task.images,
        task.compute,
        with_means=with_means,
        objective=task.objective,
    )


def _producing_weights(model: nn.Module, graph: ChannelGraph) -> list[tuple[AxisSlice, Tensor]]:
    """Return the axes of convolutions and linear layers that make channels."""
    found = []
    for cut in graph.slices:
        module = model.get_submodule(cut.module)
        transposed = isinstance(module, nn.modules.conv._ConvTransposeNd)
        layer = isinstance(module, nn.modules.conv._ConvNd | nn.Linear)
        if layer and cut.tensor == "weight" and cut.axis == (1 if transposed else 0):
            found.append((cut, getattr(module, cut.tensor)))
    return found


def _add(total: Tensor, cut: AxisSlice, values: Tensor) -> None:
    free = torch.from_numpy(cut.classes >= 0)
    total.index_add_(0, torch.from_numpy(cut.classes)[free], values[free])
