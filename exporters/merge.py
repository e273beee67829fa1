"""Merge the branches that only training needs, by the network's own method for it.

RepVGG, MobileOne, FastViT and others train with parallel branches whose sum is one convolution
(Ding et al. 2021, https://arxiv.org/abs/2101.03697, section 3.3). Their blocks offer to become that
convolution, by one of three names that libraries have agreed on.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

METHODS = ("fuse", "reparameterize", "switch_to_deploy")
"""Without arguments; returns a module that takes the block's place, or changes the block."""

TOLERANCE = 1e-4
"""Largest difference in float32, relative to a block's largest output."""


def merge_branches(model: nn.Module, example: Tensor, progress: Callable[[str], None]) -> nn.Module:
    """Merge every module that offers it and then answers as before; others stay as they are.

    Args:
        model: a copy of the caller's, in eval mode and without gradients; it is changed.
        example: one input, shape (1, C, H, W), of typical values.
        progress: is told of blocks that can't be merged, and why the first of them can't.

    Returns:
        The merged model: the given one, unless it is itself what was merged.
    """
    refused: dict[str, str] = {}
    tried: set[str] = set()
    while inputs := _inputs(model, example, tried):
        tried |= inputs.keys()
        for name, (args, kwargs) in inputs.items():
            try:
                module = model.get_submodule(name)
            except AttributeError:  # it went with the module around it
                continue
            found = _merged(module, args, kwargs)
            if isinstance(found, str):
                refused[name] = found
            elif name:
                model.set_submodule(name, found)
            else:
                model = found
    if refused:
        name, reason = next(iter(refused.items()))
        progress(f"notice: {len(refused)} blocks can't be merged, '{name}' for one: {reason}")
    return model


def _inputs(model: nn.Module, example: Tensor, tried: set[str]) -> dict[str, tuple[Any, Any]]:
    """Name -> what a run calls it with first, of the modules that offer to be merged."""
    import torch

    found: dict[str, tuple[Any, Any]] = {}

    def note(name: str) -> Callable[..., None]:
        def before(module: nn.Module, args: Any, kwargs: Any) -> None:
            found.setdefault(name, (_copied(args), kwargs))

        return before

    offers = {name: module for name, module in model.named_modules() if _method(module)}
    with ExitStack() as stack, torch.no_grad():
        for name in offers.keys() - tried:
            hook = offers[name].register_forward_pre_hook(note(name), with_kwargs=True)
            stack.callback(hook.remove)
        if offers.keys() - tried:
            model(example)
    return found


def _method(module: nn.Module) -> Callable[[], Any] | None:
    """The method by which a module merges itself, if it has one that takes no arguments."""
    for name in METHODS:
        method = getattr(module, name, None)
        if inspect.ismethod(method) and not inspect.signature(method).parameters:
            return method
    return None


def _merged(module: nn.Module, args: Any, kwargs: Any) -> nn.Module | str:
    """A merged copy that answers as the module does, or why there is none."""
    import torch
    from torch import Tensor, nn

    reason = ""
    with torch.no_grad():
        expected = module(*_copied(args), **kwargs)
        for prepare in (_as_it_is, _with_present_widths):
            try:
                part = prepare(copy.deepcopy(module))
                method = _method(part)
                if method is None:  # the module around it has merged it
                    return module
                result = method()
                part = result.eval() if isinstance(result, nn.Module) else part
                found = part(*_copied(args), **kwargs)
                if not isinstance(expected, Tensor) or found.shape != expected.shape:
                    reason = "its answer has another shape, or is no tensor"
                    continue
                difference = float((found - expected).abs().max() / expected.abs().max())
            except Exception as error:  # other people's code
                reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
                continue
            if difference <= TOLERANCE:
                return part
            reason = f"its answer changes by {difference:.1e} of the largest value"
    return reason


def _as_it_is(block: nn.Module) -> nn.Module:
    return block


def _with_present_widths(block: nn.Module) -> nn.Module:
    """Let numbers follow that only merging reads: slimming sets those that `forward` reads."""
    from torch import nn

    for module in block.modules():
        kinds = (nn.Conv2d, nn.BatchNorm2d)
        layer = next((m for m in module.modules() if isinstance(m, kinds)), None)
        if layer is None or _method(module) is None:
            continue
        is_conv = isinstance(layer, nn.Conv2d)
        ins = layer.in_channels if is_conv else layer.num_features
        outs = layer.out_channels if is_conv else layer.num_features
        present: Any = getattr(module, "groups", 1)
        groups = layer.groups if is_conv else min(present, ins)
        widths = {
            "groups": groups,
            **dict.fromkeys(("in_channels", "in_chs", "dim"), ins),
            **dict.fromkeys(("out_channels", "out_chs"), outs),
        }
        for name, width in widths.items():
            if type(getattr(module, name, None)) is int:
                setattr(module, name, width)
    return block


def _copied(args: Any) -> tuple[Any, ...]:
    """Arguments that a module may write into."""
    from torch import Tensor

    return tuple(a.clone() if isinstance(a, Tensor) else a for a in args)
