"""Make a copy of the caller's model that is ready for export; the caller's model stays as it is."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from exporters.merge import merge_branches

if TYPE_CHECKING:
    from torch import fx, nn


def plain_copy(model: nn.Module) -> nn.Module:
    """A CPU, float32, eval-mode copy; its weights are the caller's where they are such already.

    Nothing may write into them.
    """
    from torch import nn

    shared: dict[int, Any] = {
        id(weight): nn.Parameter(weight.detach(), requires_grad=False)
        for weight in model.parameters()
    }
    return copy.deepcopy(model, shared).cpu().float().eval()


def merged_copy(
    model: nn.Module, input_shape: tuple[int, int, int], progress: Callable[[str], None]
) -> nn.Module:
    """A CPU, float32, eval-mode copy with the layers that files have: branches are merged.

    Weights that merging leaves as they are may be the caller's, as in `plain_copy`.

    Args:
        input_shape: (C, H, W).
        progress: is told of branches that can't be merged (`merge.merge_branches`).
    """
    import torch

    clone = plain_copy(model)
    clone.requires_grad_(False)
    example = torch.randn(1, *input_shape, generator=torch.Generator().manual_seed(0))
    clone = merge_branches(clone, example, progress)
    return clone.requires_grad_(False)  # merging may have made new ones


def deployable(
    model: nn.Module, input_shape: tuple[int, int, int], progress: Callable[[str], None]
) -> nn.Module:
    """A CPU, float32, eval-mode copy, branches merged and BatchNorm folded into convolutions.

    Folding happens in the copy's own module tree, so that weights keep their names. A model
    that torch.fx can't trace is returned unfolded: the converters fold what they find.

    Args:
        input_shape, progress: as for `merged_copy`.
    """
    import torch

    clone = merged_copy(model, input_shape, progress)
    with torch.no_grad():
        _fold_batch_norms(clone)
    # Training may leave weights in channels_last, and the TFLite converter reads raw storage.
    clone = clone.to(memory_format=torch.contiguous_format)
    return _with_broadcast_constants(clone)


def _trace(model: nn.Module) -> fx.Graph | None:
    """Trace with modules without children as single steps; None where torch.fx can't."""
    from torch import fx

    class _Tracer(fx.Tracer):
        """A module without children is one step: its forward may read shapes, which fx can't."""

        def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
            return not any(m.children()) or super().is_leaf_module(m, module_qualified_name)

    try:
        return _Tracer().trace(model)
    except Exception:  # control flow on values, unusual calls: any of many exception types
        return None


def _with_broadcast_constants(model: nn.Module) -> nn.Module:
    """Let the constants of empty branches broadcast instead of filling a plane.

    A slimmed network gives them their full size where its code may add to them in place
    (`out += x`). That costs memory, and the TFLite converter can't lay such a plane out. The
    traced network adds out of place.
    """
    from torch import fx

    constants = [m for m in model.modules() if getattr(m, "full_size", None) is True]
    graph = _trace(model) if constants else None
    if graph is None:
        return model
    for constant in constants:
        constant.full_size = False  # type: ignore[assignment]
    return fx.GraphModule(model, graph).eval()


def _fold_batch_norms(model: nn.Module) -> None:
    from torch import fx, nn
    from torch.nn.utils.fusion import fuse_conv_bn_eval

    graph = _trace(model)
    if graph is None:
        return
    calls: dict[str, int] = {}
    for node in graph.nodes:
        if node.op == "call_module":
            calls[str(node.target)] = calls.get(str(node.target), 0) + 1
    for norm in [n for n in graph.nodes if n.op == "call_module"]:
        conv = norm.args[0] if norm.args else None
        if not isinstance(conv, fx.Node) or not _foldable(model, conv, norm, calls):
            continue
        layer, batch_norm = (model.get_submodule(str(node.target)) for node in (conv, norm))
        assert isinstance(layer, nn.Conv2d) and isinstance(batch_norm, nn.BatchNorm2d)
        _replace(model, layer, fuse_conv_bn_eval(layer, batch_norm))
        _replace(model, batch_norm, nn.Identity())


def _replace(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Put a module in another's place under every name that it has."""
    for name, module in list(model.named_modules(remove_duplicate=False)):
        if module is old:
            model.set_submodule(name, new)


def _foldable(model: nn.Module, conv: fx.Node, norm: fx.Node, calls: dict[str, int]) -> bool:
    """True for conv -> BatchNorm, where both are called once and nothing else reads the conv."""
    from torch import nn

    if conv.op != "call_module" or len(conv.users) != 1:
        return False
    if calls[str(conv.target)] != 1 or calls[str(norm.target)] != 1:
        return False
    layer, batch_norm = (model.get_submodule(str(node.target)) for node in (conv, norm))
    return (
        type(layer) is nn.Conv2d
        and type(batch_norm) is nn.BatchNorm2d
        and batch_norm.running_var is not None
    )
