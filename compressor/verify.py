"""Check that a slimmed network is the masked one."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from compressor.cost import as_tensor
from compressor.difference import answers, first_difference, relative_difference
from compressor.graph import ChannelGraph, Keep
from compressor.masks import ChannelMasks
from compressor.modes import eval_mode
from compressor.slim import slim
from compressor.training import Images
from compressor.user_code import first_line

TOLERANCE = 1e-9
"""Largest difference in float64, relative to the largest output: rounding alone stays far below."""

FLOAT32_TOLERANCE = 1e-5
"""The same for a network in float32: constants of empty branches were rounded when it was made."""


WIDENED_BYTES = 2**30
LARGE_TOLERANCE = 1e-4
"""In the arithmetic of a network beyond that; a wrong channel differs by far more."""

_PROBE_IMAGES = 4


class SlimError(RuntimeError):
    """A slimmed network doesn't compute what the masked one does: a fault in the channel graph."""


def probe_images(images: Images) -> Tensor:
    """Return a few validation images to compare two networks on, shape (N <= 4, C, H, W)."""
    x, _ = next(iter(images.validation()))
    return x[:_PROBE_IMAGES]


def check_slim(
    model: nn.Module, graph: ChannelGraph, keep: Keep, slimmed: nn.Module, images: Tensor
) -> float:
    """Compare the masked network with slimmed ones: one slimmed in float64, and the given one.

    Both are compared in float64 arithmetic and eval mode. Networks beyond `WIDENED_BYTES`, whose
    copies in float64 would take four times their memory, are compared as they are, the given one
    alone.

    Args:
        model: the network before slimming.
        graph: its channel graph.
        keep: the classes that stayed.
        slimmed: what `slim` made of it.
        images: a few inputs, shape (N, C, H, W).

    Returns:
        max |masked(x) - slim(x)| / max |masked(x)| of the one slimmed in float64, where there is
        one.

    Raises:
        SlimError: a difference is more than rounding; the message names the first module that
            differs, in order of execution.
    """
    if sum(parameter.nbytes for parameter in model.parameters()) > WIDENED_BYTES:
        with eval_mode(model), eval_mode(slimmed):
            x = images.detach().to(next(model.parameters()).device)
            return _compared(model, graph, keep, x, (lambda: slimmed, LARGE_TOLERANCE))
    exact, x = _double(model), images.detach().cpu().double()
    # One after the other: each takes twice the memory of the network.
    from_exact = (lambda: slim(exact, graph, keep), TOLERANCE)
    return _compared(
        exact, graph, keep, x, from_exact, (lambda: _double(slimmed), FLOAT32_TOLERANCE)
    )


def _compared(
    exact: nn.Module,
    graph: ChannelGraph,
    keep: Keep,
    x: Tensor,
    *slimmed: tuple[Callable[[], nn.Module], float],
) -> float:
    """The first of the differences between a masked network and slimmed ones.

    Args:
        slimmed: what makes each of them, and by how much it may differ.
    """

    def run_masked() -> list[Tensor]:
        return _masked_answers(exact, graph, keep, x)

    expected = run_masked()
    differences = []
    for make, tolerance in slimmed:
        small = make()
        difference, failure = _difference(small, x, expected)
        allowed = tolerance
        if tolerance < difference <= FLOAT32_TOLERANCE and _lowers_precision(exact, x):
            allowed = FLOAT32_TOLERANCE
        if not difference <= allowed:  # so that NaN fails
            where = first_difference(run_masked, exact, small, graph, keep, x, allowed)
            raise SlimError(
                f"the slimmed network {failure or _differs(difference, allowed)}, first at "
                f"'{where}'; the channel graph of this network is wrong there"
            )
        differences.append(difference)
        del small
    return differences[0]


def mask_effect(model: nn.Module, graph: ChannelGraph, keep: Keep, images: Tensor) -> float:
    """Return how far masks move a network's answers: max |masked(x) - whole(x)| / max |whole(x)|.

    Where they move nothing, it says nothing that a slimmed network equals the masked one.

    Args:
        model: the network, in eval mode.
        images: a few inputs, shape (N, C, H, W).
    """
    return relative_difference(_masked_answers(model, graph, keep, images), answers(model, images))


def _masked_answers(
    model: nn.Module, graph: ChannelGraph, keep: Keep, images: Tensor
) -> list[Tensor]:
    with ChannelMasks(model, graph) as masks:
        masks.set(as_tensor(keep))
        return answers(model, images)


def _difference(small: nn.Module, x: Tensor, expected: list[Tensor]) -> tuple[float, str]:
    try:
        return relative_difference(answers(small, x), expected), ""
    except Exception as error:  # a cut that doesn't fit fails in ways of the user's own code
        return float("inf"), f"fails with {type(error).__name__} ({first_line(error)})"


class _Precision(TorchFunctionMode):
    """Notes whether anything is computed in less than float64."""

    lowered = False

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and result.is_floating_point():
            self.lowered |= result.dtype != torch.float64
        return result


def _lowers_precision(model: nn.Module, x: Tensor) -> bool:
    """Return whether a network's own code falls back to float32, as some attention does."""
    with _Precision() as precision:
        answers(model, x)
    return precision.lowered


def _differs(difference: float, allowed: float) -> str:
    found = f"differs from the masked one by {difference:.1e} of its largest output"
    return f"{found}, allowed is {allowed:.0e}"


def _double(model: nn.Module) -> nn.Module:
    return copy.deepcopy(model).cpu().double().eval()
