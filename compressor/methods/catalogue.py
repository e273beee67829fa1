"""The names of all methods and what the command line says of them; imports nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

MethodName = Literal["decore", "paper", "taylor", "l1", "l2", "uniform", "bn-scale", "random"]


class MethodInfo(NamedTuple):
    """What there is to know of a method before it runs.

    Attributes:
        searches: it spends the search's epochs; otherwise fine-tuning gets them too.
        summary: one line.
    """

    searches: bool
    summary: str


CATALOGUE: Mapping[MethodName, MethodInfo] = {
    "decore": MethodInfo(True, "one agent per channel, under the budget"),
    "paper": MethodInfo(True, "DECORE as published"),
    "taylor": MethodInfo(False, "first-order change of the loss per unit of cost"),
    "l1": MethodInfo(False, "mean magnitude of the weights, compared over all layers"),
    "l2": MethodInfo(False, "root mean square of the weights, compared over all layers"),
    "uniform": MethodInfo(False, "the same share of every layer, by the l2 of its channels"),
    "bn-scale": MethodInfo(False, "scale of the batch norms, compared over all layers"),
    "random": MethodInfo(False, "chance, the same share of every layer"),
}
