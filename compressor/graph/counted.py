"""Numbers that remember where they come from: sizes of tensors, integer attributes of modules.

A `view(n, c // 2, 2, h, w)` follows when channels go, a `view(n, 32, 2, h, w)` does not. Both show
the same integers once the code has run, so the integers themselves must tell them apart.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any, Protocol

from torch import fx

Scalar = int | float


class Ledger(Protocol):
    """Who writes down what the code does with such numbers."""

    def derived(self, function: Callable[..., Any], operands: tuple[Any, ...], value: Any) -> Any:
        """Return the value of an arithmetic operation, as a number that remembers its operands."""

    def compared(self, left: Tracked, right: Any) -> None:
        """Note that the code compares a number with another one."""

    def lost(self, number: Tracked) -> None:
        """Note that a number goes where it can't be followed."""


class Tracked:
    """A number with its node in the graph, made when it is needed first."""

    _ledger: Ledger
    _make: Callable[[], fx.Node]
    _node: fx.Node | None = None

    @property
    def node(self) -> fx.Node:
        """The node that stands for this number."""
        if self._node is None:
            self._node = self._make()
        return self._node


class Count(Tracked, int):
    """A size, an attribute of a module, or integer arithmetic on them."""

    __hash__ = int.__hash__


class Ratio(Tracked, float):
    """What division and powers make of a `Count`."""

    __hash__ = float.__hash__


def tracked(value: Any, ledger: Ledger, make: Callable[[], fx.Node]) -> Any:
    """Return an int or float that remembers its node; anything else as it is."""
    number: Count | Ratio
    if type(value) is int:
        number = Count(value)
    elif type(value) is float:
        number = Ratio(value)
    else:
        return value
    number._ledger, number._make = ledger, make
    return number


def plain(value: Any) -> Any:
    """Return a tracked number as Python's own, anything else as it is."""
    if isinstance(value, Count):
        return int.__int__(value)
    return float.__float__(value) if isinstance(value, Ratio) else value


_ARITHMETIC = ("add", "sub", "mul", "floordiv", "truediv", "mod", "pow")
_COMPARISONS = ("eq", "ne", "lt", "le", "gt", "ge")
_CONVERSIONS: dict[str, Callable[[Any], Any]] = {
    "__int__": int,
    "__float__": float,
    "__round__": round,
    "__floor__": math.floor,
    "__ceil__": math.ceil,
    "__trunc__": math.trunc,
}


def _arithmetic(name: str, *, reverse: bool) -> Callable[..., Any]:
    function = getattr(operator, name)

    def method(self: Tracked, other: Any, *_: Any) -> Any:
        if not isinstance(other, (int, float)):
            return NotImplemented
        operands = (other, self) if reverse else (self, other)
        value = function(*(plain(operand) for operand in operands))
        return self._ledger.derived(function, operands, value)

    return method


def _comparison(name: str) -> Callable[..., Any]:
    function = getattr(operator, name)

    def method(self: Tracked, other: Any) -> Any:
        if not isinstance(other, (int, float)):
            return NotImplemented
        self._ledger.compared(self, other)
        return function(plain(self), plain(other))

    return method


def _negation(self: Tracked) -> Any:
    return self._ledger.derived(operator.neg, (self,), -plain(self))


def _conversion(function: Callable[[Any], Any]) -> Callable[..., Any]:
    def method(self: Tracked, *digits: Any) -> Any:
        self._ledger.lost(self)
        return function(plain(self), *digits)

    return method


def _teach(kind: type[Tracked]) -> None:
    """Give a number type its operators."""
    for name in _ARITHMETIC:
        setattr(kind, f"__{name}__", _arithmetic(name, reverse=False))
        setattr(kind, f"__r{name}__", _arithmetic(name, reverse=True))
    for name in _COMPARISONS:
        setattr(kind, f"__{name}__", _comparison(name))
    for name, function in _CONVERSIONS.items():
        setattr(kind, name, _conversion(function))
    setattr(kind, "__neg__", _negation)  # noqa: B010  (mypy knows no such operator)


_teach(Count)
_teach(Ratio)
