"""Regularization for the smaller capacity: a slimmed network overfits less than the original.

Saving a network drops its probabilities of dropout, since they matter only in training: whoever
trains a loaded one calls `scale_dropout` again.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.dropout import _DropoutNd

from compressor.modes import eval_mode
from compressor.recipe import Recipe


def share_left(model: nn.Module, original: nn.Module) -> float:
    """Return the parameters of a network over those of the original, a fraction."""
    count, before = (sum(p.numel() for p in net.parameters()) for net in (model, original))
    return count / before


def scaled_decay(recipe: Recipe, share: float) -> Recipe:
    """Return the recipe with its weight decay times the root of a share of the parameters.

    Our own rule: decay is the precision of a Gaussian prior around 0. Weights at the scale of He et
    al. 2015 (https://arxiv.org/abs/1502.01852, equation 10) have a variance of 2 / inputs, so the
    precision goes with the inputs, and those with the root of the parameters where inputs and
    outputs are thinned alike.
    """
    return replace(recipe, weight_decay=recipe.weight_decay * math.sqrt(share))


def dropout_rate(original: float, connections_left: int, connections: int) -> float:
    """Return D_r = D_o sqrt(C_ir / C_io): Han et al. 2015, equation 2.

    https://arxiv.org/abs/1506.02626, section 3.2.
    """
    return original * math.sqrt(connections_left / connections)


def scale_dropout(model: nn.Module, original: nn.Module, example: Tensor) -> None:
    """Set the probabilities of a slimmed network's dropout modules from those of the original.

    The connections are those of the layer that runs next. Dropout behind which no layer runs, and
    dropout that isn't a module, stays. Calling it twice changes nothing more.

    Args:
        model: a slimmed copy of the original; its modules have the original's names.
        example: one input, shape (1, C, H, W).
    """
    for name, layer in _next_layers(model, example).items():
        dropout, before = model.get_submodule(name), original.get_submodule(name)
        assert isinstance(dropout, _DropoutNd) and isinstance(before, _DropoutNd)
        left, whole = _connections(model, layer), _connections(original, layer)
        dropout.p = dropout_rate(before.p, left, whole)


def _connections(model: nn.Module, layer: str) -> int:
    weight = model.get_submodule(layer).weight
    assert isinstance(weight, Tensor)
    return weight.numel()


def _next_layers(model: nn.Module, example: Tensor) -> dict[str, str]:
    """Return dropout module -> the layer that runs next, by running the network once."""
    waiting: list[str] = []
    found: dict[str, str] = {}

    def at_dropout(name: str) -> Callable[..., None]:
        return lambda *_: waiting.append(name)

    def at_layer(name: str) -> Callable[..., None]:
        def note(*_: object) -> None:
            for dropout in waiting:
                found.setdefault(dropout, name)
            waiting.clear()

        return note

    handles = []
    for name, module in model.named_modules():
        if isinstance(module, _DropoutNd):
            handles.append(module.register_forward_pre_hook(at_dropout(name)))
        elif isinstance(module, nn.Linear | _ConvNd):
            handles.append(module.register_forward_pre_hook(at_layer(name)))
    with eval_mode(model), torch.no_grad():
        model(example.to(next(model.parameters()).device))
    for handle in handles:
        handle.remove()
    return found
