"""What is compared: our methods, settings of our agents, and other libraries."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.pruning.page.records import CONTINUED
from benchmarks.pruning.peer_forms import Form
from benchmarks.pruning.peer_training import sparse_train
from benchmarks.pruning.peers import PEERS, Schedule, prune_with_peer
from compressor.cost import as_tensor
from compressor.decore.agents import GradientAgents
from compressor.decore.budget import BudgetAgents, BudgetSettings, cost_gradient
from compressor.decore.values import ValueAgents
from compressor.methods.catalogue import CATALOGUE
from compressor.methods.learned import Decore
from compressor.methods.method import Method, PruneTask
from compressor.methods.one_shot import globally, taylor
from compressor.methods.registry import METHODS
from compressor.methods.rounds import in_rounds
from compressor.methods.scores import taylor_prior
from compressor.verify import probe_images


@dataclass(frozen=True)
class Variant:
    """One line of a comparison.

    Attributes:
        prune: returns the slimmed network, before fine-tuning.
        searches: spends epochs before that.
        distillation: of the search's recipe.
        own_recovery: fine-tuned on labels alone, as the library's authors do, without our
            distillation and recalibration; otherwise fine-tuning is the same for all.
        saveable: the result is a slimmed form of the architecture, not of a relative of it.
    """

    prune: Callable[[PruneTask], nn.Module]
    searches: bool
    distillation: float = 0.5
    own_recovery: bool = False
    saveable: bool = True


def _ours(method: Method) -> Callable[[PruneTask], nn.Module]:
    def prune(task: PruneTask) -> nn.Module:
        choice = method(task)
        return choice.left.cut(choice.keep, probe_images(task.images))[0]

    return prune


def _agents(
    *,
    steps: bool = True,
    means: bool = True,
    levelling: float = 0.0,
    agents: type[BudgetAgents] = GradientAgents,
    **settings: Any,
) -> Variant:
    method = Decore(
        BudgetSettings(**settings),
        agents_of_steps=steps,
        with_means=means,
        prior=partial(_levelled, levelling=levelling),
        agents=agents,
    )
    return Variant(_ours(method), searches=True)


def _levelled(task: PruneTask, with_means: bool, levelling: float) -> Tensor:
    """The Taylor prior, divided by a power of its geometric mean per cost in each group.

    At 1 all groups are worth the same on average, so that similar shares of each stay.
    """
    prior = taylor_prior(task, with_means)
    price = cost_gradient(task.limits, as_tensor(task.graph.all_kept()))
    logs = (prior / price).clamp_min(torch.finfo(prior.dtype).tiny).log()
    for group in task.graph.groups:
        classes = torch.as_tensor(group.classes)
        alive = classes[prior[classes] > 0]
        if len(alive):
            prior[alive] *= (-levelling * logs[alive].mean()).exp()
    return prior


_METHODS: dict[str, Variant] = {
    name: Variant(_ours(method), CATALOGUE[name].searches, 0.0 if name == "paper" else 0.5)
    for name, method in METHODS.items()
}

_FIRST: dict[str, Any] = {
    "estimator": "taylor-control",
    "policy_rate": 0.01,
    "first_temperature": 0.3,
    "steps": False,
    "means": False,
}
"""How the default agents began."""

_SETTINGS = {
    "decore:first": _agents(**_FIRST),
    "decore:prior-only": _agents(policy_rate=0.0),
    "decore:single-channels": _agents(steps=False),
    "decore:zeros": _agents(means=False),
    "decore:leave-one-out": _agents(estimator="leave-one-out"),
    "decore:taylor-control": _agents(estimator="taylor-control"),
    "decore:trapezoid": _agents(estimator="trapezoid"),
    "decore:fast": _agents(policy_rate=0.02),
    "decore:soft": _agents(first_temperature=0.5, last_temperature=0.1),
    "decore:sharp": _agents(first_temperature=0.1, last_temperature=0.02),
    "decore:values": _agents(agents=ValueAgents),
    "decore:half-level": _agents(levelling=0.5),
    "decore:level": _agents(levelling=1.0),
    "taylor:rounds": Variant(_ours(in_rounds(METHODS["taylor"], 12)), searches=True),
    "taylor:means": Variant(_ours(globally(partial(taylor, with_means=True))), searches=False),
}
"""One change at a time against the default."""


def _peer(name: str, form: Form, schedule: Schedule, *, own: bool = False) -> Variant:
    sparse = own and PEERS[name].sparse

    def prune(task: PruneTask) -> nn.Module:
        limits, whole = task.limits, as_tensor(task.graph.all_kept())
        trained = _sparsely_trained(name, form, task) if sparse else None
        return prune_with_peer(
            name,
            task.start.model,
            task.images,
            task.compute,
            shares={n: at / float(limits.costs.value(n, whole)) for n, at in limits.limits.items()},
            channel_step=task.channel_step,
            form=form,
            schedule=schedule,
            sparse=trained,
        )

    return Variant(
        prune,
        searches=sparse,
        distillation=0.0 if own else 0.5,
        own_recovery=own,
        saveable=form == "inner",
    )


def _sparsely_trained(name: str, form: Form, task: PruneTask) -> nn.Module:
    return sparse_train(
        name,
        task.start.model,
        task.images,
        task.recipe,
        task.compute,
        checkpoint=task.checkpoint,
        observer=task.observer,
        form=form,
    )


_FORMS: tuple[tuple[str, Form], ...] = (("", "projection"), ("-inner", "inner"))
_SCHEDULES: tuple[tuple[str, Schedule], ...] = (("", "progressive"), ("-once", "one-shot"))

_PEERS = {
    f"{name}{form_suffix}{schedule_suffix}{recipe_suffix}": _peer(name, form, schedule, own=own)
    for name in PEERS
    for form_suffix, form in _FORMS
    for schedule_suffix, schedule in _SCHEDULES
    for recipe_suffix, own in (("", False), ("-own", True))
}

_UNPRUNED = Variant(lambda task: task.start.model, searches=False)
"""Nothing is pruned: what the same epochs do for the baseline itself."""

VARIANTS: Mapping[str, Variant] = {CONTINUED: _UNPRUNED, **_METHODS, **_SETTINGS, **_PEERS}
