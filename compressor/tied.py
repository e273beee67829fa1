"""Parameters that several modules have: found, and shared again after each was cut alike."""

from __future__ import annotations

import torch
from torch import nn

Owner = tuple[str, str]
"""Qualified name of a module, and what it calls the parameter."""


def shared_parameters(model: nn.Module) -> list[list[Owner]]:
    """Return the owners of every parameter that has several; a module with two names is one."""
    owners: dict[int, list[Owner]] = {}
    for module_name, module in model.named_modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                owners.setdefault(id(parameter), []).append((module_name, name))
    return [found for found in owners.values() if len(found) > 1]


def share(model: nn.Module, groups: list[list[Owner]]) -> None:
    """Let the owners of each group share one parameter again, where theirs are still equal.

    Modules that a cut replaced have no such parameter any more.
    """
    for owners in groups:
        first: nn.Parameter | None = None
        for module_name, name in owners:
            module = model.get_submodule(module_name)
            own = module._parameters.get(name)
            if own is None:
                continue
            if first is None:
                first = own
            elif torch.equal(own, first):
                setattr(module, name, first)
