"""What a module is called with, as hooks with keyword arguments get it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor


def first_tensor(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor | None:
    """Return the first tensor of a call, `layer(x)` or `layer(input=x)`; None without one."""
    found = (value for value in (*args, *kwargs.values()) if isinstance(value, Tensor))
    return next(found, None)


def with_first_tensor(
    args: tuple[Any, ...], kwargs: Mapping[str, Any], x: Tensor
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return a call's arguments with another tensor in place of the first one."""
    for index, value in enumerate(args):
        if isinstance(value, Tensor):
            return (*args[:index], x, *args[index + 1 :]), dict(kwargs)
    name = next(name for name, value in kwargs.items() if isinstance(value, Tensor))
    return args, {**kwargs, name: x}
