"""The operations of a network in order of execution: once written down, later recognised.

A network in eval mode does the same operations for every batch, so the n-th operation of one pass
is the n-th of the next. That is all that has to be known to act on some of them; no symbolic trace
is needed, and whatever the network's code does between them stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

from compressor.graph.interpreter import function_name, nested
from compressor.modes import eval_mode


@dataclass(frozen=True)
class Call:
    """One operation on tensors of real numbers.

    Attributes:
        name: of the function or tensor method, without underscores: "conv2d", "add", "relu".
        sources: operations whose results it read, by number; -1 is the network's input.
        constants: tensors that it read and that no operation made, such as weights.
        shape: of its `answer`; empty where it has none.
    """

    name: str
    sources: tuple[int, ...]
    constants: tuple[Tensor, ...]
    shape: tuple[int, ...] = ()


class Calls(TorchFunctionMode):
    """Count operations; subclasses say what happens at each.

    Use as a context manager around one forward pass.
    """

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def call(self, number: int, name: str, run: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Do operation `number`: return what `run(*args, **kwargs)` returns, or else."""
        return run(*args, **kwargs)

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if not _reads_real_tensor(args, kwargs) or getattr(func, "__name__", "") == "__get__":
            return func(*args, **kwargs)
        number, self.count = self.count, self.count + 1
        return self.call(number, function_name(func), func, args, kwargs)


class WrittenCalls(Calls):
    """Write the operations of one pass down.

    Args:
        example: the network's input.
    """

    def __init__(self, example: Tensor) -> None:
        super().__init__()
        self.calls: list[Call] = []
        self._makers: Any = WeakTensorKeyDictionary()
        self._makers[example] = -1

    def call(self, number: int, name: str, run: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Note an operation."""
        read = _tensors(args) + _tensors(tuple(kwargs.values()))
        result = run(*args, **kwargs)
        with torch._C.DisableTorchFunction():
            results = _tensors((result,))
            sources = tuple(self._makers[t] for t in read if t in self._makers)
            constants = tuple(t for t in read if t not in self._makers)
            # What only asks (for a size, say) is counted and has no part in anything else.
            found = answer(result)
            shape = () if found is None else tuple(found.shape)
            asks = not results
            self.calls.append(Call(name, (), ()) if asks else Call(name, sources, constants, shape))
            if sources:
                for tensor in results:
                    self._makers[tensor] = number
        return result

    def maker(self, tensor: Tensor) -> int:
        """Return the number of the operation that made a tensor."""
        return int(self._makers[tensor])


def written(model: torch.nn.Module, example: Tensor) -> tuple[list[Call], set[int]]:
    """Run a network in eval mode; return its operations, and those that made its outputs.

    Args:
        example: one input, shape (N, C, H, W).
    """
    mode = WrittenCalls(example)
    with eval_mode(model), torch.no_grad(), mode:
        answers = model(example)
    return mode.calls, {mode.maker(tensor) for tensor in _tensors(nested(answers))}


def answer(result: Any) -> Tensor | None:
    """Return what an operation is about: its result, or the first one of real numbers in a tuple.

    Attention, recurrent layers and maxima return this beside weights, states and places.
    """
    entries = result if isinstance(result, (tuple, list)) else (result,)
    return next((e for e in entries if isinstance(e, Tensor) and e.is_floating_point()), None)


def with_answer(result: Any, changed: Tensor) -> Any:
    """Return a result with another tensor in the place of its `answer`."""
    old = answer(result)
    if result is old:
        return changed
    return type(result)([changed if entry is old else entry for entry in result])


def _tensors(value: Any) -> list[Tensor]:
    """Return the tensors of real numbers in nested tuples, lists and dicts."""
    if isinstance(value, Tensor):
        return [value] if value.is_floating_point() else []
    if isinstance(value, dict):
        value = tuple(value.values())
    if isinstance(value, (tuple, list)):
        return [tensor for entry in value for tensor in _tensors(entry)]
    return []


def _reads_real_tensor(args: Any, kwargs: Any) -> bool:
    with torch._C.DisableTorchFunction():
        return bool(_tensors(args) or _tensors(tuple(kwargs.values())))
