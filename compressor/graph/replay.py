"""Call the function of a node on labels in place of numbers."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from compressor.graph.interpreter import LabelInterpreter


def replay(run: LabelInterpreter, node: fx.Node) -> Any:
    """Call a node's own function on labels in full shape."""

    def value_of(argument: fx.Node) -> Any:
        return run.scalars[argument] if argument in run.scalars else run.expanded(argument)

    args = fx.node.map_arg(node.args, value_of)
    kwargs = fx.node.map_arg(node.kwargs, value_of)
    # A view of expanded labels may be impossible where the tensor's own view is not.
    function: Any = torch.Tensor.reshape if node.target is torch.Tensor.view else node.target
    return function(*args, **kwargs)


def argument(
    run: LabelInterpreter,
    node: fx.Node,
    position: int,
    *names: str,
    default: Any,
    resolve: bool = True,
) -> Any:
    """Return an argument of a node that may be given by position or by name.

    Args:
        resolve: give the values of numbers, not their nodes.
    """
    if len(node.args) > position:
        found = node.args[position]
    else:
        found = next((node.kwargs[name] for name in names if name in node.kwargs), default)
    return fx.node.map_arg(found, run.scalars.__getitem__) if resolve else found
