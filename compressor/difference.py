"""Find where a slimmed network starts to differ from the masked one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from compressor.graph import ChannelGraph, Keep, kept_indices
from compressor.graph.channel_graph import Classes
from compressor.graph.interpreter import nested


def answers(model: nn.Module, x: Tensor) -> list[Tensor]:
    """Return all tensors that a network answers with, whatever holds them."""
    with torch.no_grad():
        return list(_tensors_in(nested(model(x))))


def relative_difference(found: list[Tensor], expected: list[Tensor]) -> float:
    """Return the largest difference, each tensor's relative to its largest value; NaN stays NaN."""
    worst = 0.0
    for one, other in zip(found, expected, strict=True):
        if one.shape != other.shape:
            return float("inf")
        if other.numel() and other.is_floating_point():
            scale = other.abs().max().clamp_min(1e-30)
            difference = float((one - other).abs().max() / scale)
            worst = difference if difference != difference else max(worst, difference)
            if worst != worst:
                return worst
    return worst


def first_difference(
    run_masked: Callable[[], Any],
    masked: nn.Module,
    slimmed: nn.Module,
    graph: ChannelGraph,
    keep: Keep,
    x: Tensor,
    allowed: float,
) -> str:
    """Return the name of the first module whose answer differs, or that fails.

    Args:
        run_masked: runs `masked` on x, with its masks.
        masked, slimmed: in eval mode and of the same dtype as x.
        allowed: largest relative difference that doesn't count.
    """
    expected, _ = _answers_of_modules(masked, run_masked)
    found, failed_in = _answers_of_modules(slimmed, lambda: slimmed(x))
    channels = _channels(graph)
    before, after = (dict(model.named_modules()) for model in (masked, slimmed))
    for name, whole in expected.items():
        part = found.get(name)
        if part is None or type(after[name]) is not type(before[name]):
            continue  # a placeholder in an empty branch
        chosen = _chosen(whole, channels.get(name), keep)
        if chosen.shape != part.shape and name not in channels:
            continue  # nobody knows which of its channels are left
        if not relative_difference([part], [chosen]) <= allowed:
            return name
    return failed_in or "output"


def _answers_of_modules(
    model: nn.Module, run: Callable[[], Any]
) -> tuple[dict[str, Tensor], str | None]:
    """Return the first answer of every module in order, and the innermost one that failed."""
    found: dict[str, Tensor] = {}
    running: list[str] = []

    def hooks(name: str) -> tuple[Any, Any]:
        def enter(module: nn.Module, inputs: Any) -> None:
            running.append(name)

        def leave(module: nn.Module, inputs: Any, output: Any) -> None:
            running.remove(name)
            if isinstance(output, Tensor):
                found.setdefault(name, output.detach().clone())

        return enter, leave

    with ExitStack() as stack, torch.no_grad():
        for name, module in model.named_modules():
            enter, leave = hooks(name)
            stack.callback(module.register_forward_pre_hook(enter).remove)
            stack.callback(module.register_forward_hook(leave).remove)
        try:
            run()
        except Exception:  # a cut that doesn't fit fails in ways of the user's own code
            return found, running[-1] if running else None
    return found, None


def _channels(graph: ChannelGraph) -> dict[str, Classes]:
    """Return module -> the classes of what it makes."""
    found = {
        cut.module: cut.classes
        for cut in graph.slices
        if cut.axis == 0 and cut.tensor in ("weight", "bias", "running_mean")
    }
    return {**found, **{layer.module: layer.out_classes for layer in graph.layers}}


def _chosen(whole: Tensor, classes: Classes | None, keep: Keep) -> Tensor:
    """Return the kept channels of a masked network's tensor."""
    if classes is None:
        return whole
    axes = (1, -1) if whole.dim() == 4 else (-1, 1)
    axis = next((a for a in axes if whole.dim() > 1 and whole.shape[a] == len(classes)), None)
    if axis is None:
        return whole
    kept = torch.from_numpy(kept_indices(classes, keep)).to(whole.device)
    return whole.index_select(axis, kept)


def _tensors_in(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for entry in value.values():
            yield from _tensors_in(entry)
    elif isinstance(value, tuple):
        for entry in value:
            yield from _tensors_in(entry)
