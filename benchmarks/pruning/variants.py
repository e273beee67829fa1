"""What is compared: our methods, settings of our agents, and other libraries."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import nn

from compressor.decore.agents import BudgetSettings
from compressor.methods.catalogue import CATALOGUE
from compressor.methods.learned import Decore
from compressor.methods.method import Method, PruneTask
from compressor.methods.registry import METHODS

_VERIFIED_IMAGES = 4


@dataclass(frozen=True)
class Variant:
    """One line of a comparison.

    Attributes:
        prune: returns the slimmed network, before fine-tuning.
        searches: spends epochs before that.
        distillation: of the search's recipe; fine-tuning is the same for all.
    """

    prune: Callable[[PruneTask], nn.Module]
    searches: bool
    distillation: float = 0.5


def _ours(method: Method) -> Callable[[PruneTask], nn.Module]:
    def prune(task: PruneTask) -> nn.Module:
        choice = method(task)
        images = next(iter(task.images.validation()))[0][:_VERIFIED_IMAGES]
        return choice.left.without(choice.keep, images).model

    return prune


def _agents(**settings: object) -> Variant:
    return Variant(_ours(Decore(BudgetSettings(**settings))), searches=True)  # type: ignore[arg-type]


_METHODS = {
    name: Variant(_ours(method), CATALOGUE[name].searches, 0.0 if name == "paper" else 0.5)
    for name, method in METHODS.items()
}

_SETTINGS = {
    "decore:prior-only": _agents(policy_rate=0.0),
    "decore:leave-one-out": _agents(estimator="leave-one-out"),
    "decore:trapezoid": _agents(estimator="trapezoid"),
    "decore:trapezoid-control": _agents(estimator="trapezoid-control"),
    "decore:sharp": _agents(first_temperature=0.1, last_temperature=0.02),
}

VARIANTS: Mapping[str, Variant] = {**_METHODS, **_SETTINGS}
