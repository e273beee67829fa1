"""The names of all methods and what the command line says of them; imports nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

MethodName = Literal[
    "decore",
    "paper",
    "hard-concrete",
    "bn-sparse",
    "evolution",
    "taylor",
    "l1",
    "l2",
    "uniform",
    "bn-scale",
    "random",
    "dead",
]


class MethodInfo(NamedTuple):
    """What there is to know of a method before it runs.

    Attributes:
        searches: it spends the search's epochs; otherwise fine-tuning gets them too.
        summary: one line.
        by_norms: it ranks by the scales of batch norms, of which the network needs one at least.
    """

    searches: bool
    summary: str
    by_norms: bool = False


CATALOGUE: Mapping[MethodName, MethodInfo] = {
    "decore": MethodInfo(True, "one agent per channel, under the budget"),
    "paper": MethodInfo(True, "DECORE as published"),
    "hard-concrete": MethodInfo(True, "gates that are learned with the weights, at a price"),
    "bn-sparse": MethodInfo(True, "batch-norm scales that an L1 penalty makes sparse", True),
    "evolution": MethodInfo(True, "widths bred by the loss of the masked network"),
    "taylor": MethodInfo(False, "first-order change of the loss per unit of cost"),
    "l1": MethodInfo(False, "mean magnitude of the weights, compared over all layers"),
    "l2": MethodInfo(False, "root mean square of the weights, compared over all layers"),
    "uniform": MethodInfo(False, "the same share of every layer, by the l2 of its channels"),
    "bn-scale": MethodInfo(False, "scale of the batch norms, compared over all layers", True),
    "random": MethodInfo(False, "chance, the same share of every layer"),
    "dead": MethodInfo(False, "channels that do nothing, and no others"),
}
