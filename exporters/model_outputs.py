"""The outputs of a network as a flat, named tuple, whatever container its forward returns."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from exporters.errors import UnsupportedExportError

if TYPE_CHECKING:
    from torch import Tensor, nn

SINGLE = "logits"
INPUT = "input"


def flatten_outputs(model: nn.Module, input_shape: tuple[int, int, int]) -> tuple[str, ...]:
    """Let a network return its outputs as a flat tuple, in place, and return their names.

    A single tensor stays as it is and is called "logits". Keys of dicts and fields of named tuples
    are names ("out", "aux"), places in other sequences become "output_0"; deeper ones are joined
    ("boxes_0"). None among the outputs is left out, and so is a tensor that was returned before. A
    name that is taken gets a number; the input has its own.

    Args:
        model: a copy of our own, in eval mode.
        input_shape: (C, H, W).

    Raises:
        UnsupportedExportError: an output is neither a tensor nor a container of tensors.
    """
    import torch

    with torch.inference_mode():
        example = model(torch.zeros(1, *input_shape))
    if isinstance(example, torch.Tensor):
        return (SINGLE,)
    first: dict[int, int] = {}  # place of a tensor's first mention
    leaves = list(_leaves(example))
    for place, (_, value) in enumerate(leaves):
        first.setdefault(id(value), place)
    kept = sorted(first.values())
    names = _told_apart([leaves[place][0] for place in kept])

    # A hook, not a wrapper, which would put its own name before every layer's; and not a forward on
    # the instance, which in a copy would still run the original.
    def flat(module: nn.Module, inputs: Any, found: Any) -> tuple[Tensor, ...]:
        values = [value for _, value in _leaves(found)]
        return tuple(values[place] for place in kept)

    model.register_forward_hook(flat)
    return names


def _told_apart(names: Sequence[str]) -> tuple[str, ...]:
    taken = {INPUT}
    distinct = []
    for name in names:
        number, candidate = 1, name
        while candidate in taken or (number > 1 and candidate in names):
            number += 1
            candidate = f"{name}_{number}"
        taken.add(candidate)
        distinct.append(candidate)
    return tuple(distinct)


def _leaves(outputs: Any, path: str = "") -> Iterator[tuple[str, Tensor]]:
    import torch

    if outputs is None:
        return
    if isinstance(outputs, torch.Tensor):
        yield re.sub(r"\W", "_", path), outputs
    elif isinstance(outputs, Mapping):
        for key, value in outputs.items():
            yield from _leaves(value, f"{path}_{key}" if path else str(key))
    elif isinstance(outputs, Sequence) and not isinstance(outputs, str):
        fields = getattr(outputs, "_fields", None)
        for index, value in enumerate(outputs):
            key = fields[index] if fields else index
            named = str(key) if fields else f"output_{key}"
            yield from _leaves(value, f"{path}_{key}" if path else named)
    else:
        raise UnsupportedExportError(
            f"the model returns a {type(outputs).__name__}; a tensor, or a dict, tuple or list of "
            "tensors, is needed"
        )
