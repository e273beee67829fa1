"""Cut single modules: take positions out of their tensors, let their integers follow."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn


def cut_tensor(module: nn.Module, tensor: str, axis: int, kept: NDArray[np.int64]) -> None:
    """Leave only some positions along an axis of a parameter or buffer."""
    old: Any = getattr(module, tensor)
    if len(kept) == old.shape[axis]:
        return
    new = old.detach().index_select(axis, torch.from_numpy(kept).to(old.device))
    if isinstance(old, nn.Parameter):
        setattr(module, tensor, nn.Parameter(new, requires_grad=old.requires_grad))
    else:
        setattr(module, tensor, new)


def follow_layer(module: nn.Module, depthwise: bool) -> None:
    """Let a layer's integer attributes say what its weight says."""
    if isinstance(module, nn.Linear):
        module.out_features, module.in_features = module.weight.shape
    elif isinstance(module, nn.modules.conv._ConvTransposeNd):
        module.in_channels = module.weight.shape[0]
        if depthwise:
            module.groups = module.in_channels
        module.out_channels = module.weight.shape[1] * module.groups
    elif isinstance(module, nn.modules.conv._ConvNd):
        multiplier = module.out_channels // module.in_channels if depthwise else 1
        module.out_channels = module.weight.shape[0]
        if depthwise:
            module.groups = module.out_channels // multiplier
        module.in_channels = module.weight.shape[1] * module.groups


def set_count(module: nn.Module, path: str, value: int) -> None:
    """Set an integer attribute, or an entry of a list or tuple of them (`widths.2`)."""
    name, _, entry = path.partition(".")
    if not entry:
        setattr(module, name, value)
        return
    values = list(getattr(module, name))
    values[int(entry)] = value
    setattr(module, name, type(getattr(module, name))(values))
