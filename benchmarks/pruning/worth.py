"""What channels are worth to every estimator: `python -m benchmarks.pruning.worth`.

An agent's worth is the rise of the loss when its channels go. The search wants it for a whole
network, where they are gone for every image; it sees batches in which every image has actions of
its own, and batch norm, which mixes all images of a batch, ties them together. So the truth here
is an intervention: the mean loss of a batch in which all images drop the agent's channels, minus
that of the same batch in which all keep them, all other agents as they were drawn. The network's
weights stay as they are, batch norm takes the statistics of the batch, dropped channels give their
means, as in a step of the search.
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.pruning import results
from benchmarks.pruning.compare import CHANNEL_STEP
from benchmarks.pruning.setting import (
    NETWORKS,
    Setting,
    add_arguments,
    open_setting,
    say,
    with_seed,
)
from compress_export.task import Task
from compressor.cost import Limits, NetworkCosts, as_tensor
from compressor.decore.agents import GradientAgents, step_agents
from compressor.decore.budget import cost_gradient
from compressor.decore.estimators import ESTIMATORS, Estimator, Trapezoid
from compressor.decore.outcome import Outcome
from compressor.decore.policy import sample_actions
from compressor.decore.taylor import taylor_scores
from compressor.graph import ChannelGraph, channel_graph
from compressor.masks import ChannelMasks
from compressor.methods.agent_search import TAUGHT_SHARE
from compressor.saved import load_model
from compressor.training import Recipe, teacher_answers

ARGUMENTS = ("network", "share", "batches", "truth_batches", "seed")
WHOLE = "trapezoid, whole batch"
RESULTS = Path(__file__).parents[1] / "results" / "worth.json"
RECIPE = Recipe(epochs=1, learning_rate=0.0, distillation=0.5)
DECIDED = 0.01
"""Agents nearer than this to 0 or 1 are left out: their other side is hardly ever drawn."""


@dataclass(frozen=True)
class Moment:
    """A search that stands still at its prior: its agents have learned nothing yet.

    Attributes:
        task: its network is masked; the weights stay as they are.
        teacher: the same network, never masked.
        graph: of the network.
        agent_of: agent of every class, shape (classes,).
        p: the agents' keep probabilities, shape (agents,), float64.
        price: what each agent costs, as a share of the limit, shape (agents,).
        prior: the agents' logits, shape (agents,).
        load: expected cost over its limit.
    """

    task: Task
    teacher: nn.Module
    graph: ChannelGraph
    agent_of: Tensor
    p: Tensor
    price: Tensor
    prior: Tensor
    load: float

    def draw(self, images: int, generator: torch.Generator) -> Tensor:
        """Draw actions of all agents for every image, shape (images, agents)."""
        return sample_actions(self.p, images, generator).double()

    def answers(self, x: Tensor) -> Any:
        """Return what the teacher says of a batch."""
        with self.task.compute.arithmetic():
            return teacher_answers(self.teacher, x)

    def losses(self, x: Tensor, labels: Tensor, answers: Any, mask: Tensor) -> Tensor:
        """Return every image's loss under masks (N, classes)."""
        model = self.task.model.train()
        with ChannelMasks(model, self.graph, with_means=True) as masks:
            with self.task.compute.arithmetic():
                masks.set(mask)
                outputs = model(self.task.compute.images(x))
            return self.task.objective.losses(outputs, labels, answers, RECIPE)

    def try_out(self, x: Tensor, labels: Tensor, actions: Tensor) -> Outcome:
        """Run a batch under actions (N, agents); d loss / d action is taken of all images."""
        answers = self.answers(x)
        mask = actions[:, self.agent_of].float().requires_grad_()
        losses = self.losses(x, labels, answers, mask)
        (gradients,) = torch.autograd.grad(losses.sum(), mask)
        joined = torch.zeros_like(actions).index_add_(1, self.agent_of, gradients.double())
        reference = self.task.objective.losses(answers, labels, answers, RECIPE)
        return Outcome(actions, losses.detach(), reference, torch.zeros(len(x)), joined)

    @torch.no_grad()
    def loss(self, x: Tensor, labels: Tensor, answers: Any, actions: Tensor) -> Tensor:
        """Return the mean loss of a batch under actions (N, agents)."""
        return self.losses(x, labels, answers, actions[:, self.agent_of].float()).double().mean()


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--network", choices=list(NETWORKS), default="resnet20-short")
    parser.add_argument("--share", type=float, default=0.25, help="of the MACs, at the end")
    parser.add_argument("--progress", type=float, nargs="+", default=[0.25])
    parser.add_argument("--batches", type=int, default=60, help="that estimators see")
    parser.add_argument("--truth-batches", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    add_arguments(parser)
    arguments = parser.parse_args()
    setting = open_setting(arguments)
    content = {
        "arguments": {name: getattr(arguments, name) for name in ARGUMENTS},
        "environment": results.environment(),
        "moments": [at(setting, progress, arguments) for progress in arguments.progress],
    }
    RESULTS.write_text(json.dumps(content, indent=1) + "\n")


def at(setting: Setting, progress: float, arguments: argparse.Namespace) -> dict[str, Any]:
    """Compare the estimators at one moment of the search."""
    moment = stand_still(setting, progress, arguments)
    undecided = ((moment.p > DECIDED) & (moment.p < 1 - DECIDED)).nonzero().flatten()
    worth = estimates(moment, arguments.batches, arguments.seed)
    truth = interventions(moment, undecided, arguments.truth_batches, arguments.seed)
    price = moment.price[undecided]
    rows = [{"estimator": "prior", "order": order(truth.mean(0) / price, moment.prior[undecided])}]
    rows += [
        {"estimator": name, **figures(values[:, undecided], truth, price)}
        for name, values in worth.items()
    ]
    found = {"progress": progress, "undecided": len(undecided), "rows": rows}
    say(json.dumps(found))
    return found | {"load": moment.load, "agents": len(moment.p)}


def stand_still(setting: Setting, progress: float, arguments: argparse.Namespace) -> Moment:
    """Begin a search and stop it at the asked moment."""
    task = with_seed(setting.task(arguments.network), arguments.seed)
    graph = channel_graph(task.model, task.example())
    costs = NetworkCosts(graph)
    limits = Limits(costs, costs.shares({"macs": arguments.share}, as_tensor(graph.all_kept())))
    scores = taylor_scores(task.model, graph, task.images("search"), task.compute, with_means=True)
    agent_of = step_agents(scores.numpy(), graph, CHANNEL_STEP)
    agents = GradientAgents(scores, limits, agent_of=agent_of)
    probabilities = agents.probabilities(progress).double()
    _, first = np.unique(agent_of, return_index=True)
    number = torch.from_numpy(agent_of)
    price = torch.zeros(len(first), dtype=torch.float64)
    return Moment(
        task=task,
        teacher=task.compute.place(load_model(setting.baseline(arguments.network))).eval(),
        graph=graph,
        agent_of=number,
        p=probabilities[first],
        price=price.index_add_(0, number, cost_gradient(limits, probabilities)),
        prior=agents.ranking()[first],
        load=float(limits.load(probabilities)),
    )


def estimates(moment: Moment, batches: int, seed: int) -> dict[str, Tensor]:
    """Let every estimator see the same batches; return what it says of each, (batches, agents).

    An estimator gives d E[loss] / d logit = -worth x p (1 - p).
    """
    generator = torch.Generator().manual_seed(seed)
    count = len(moment.p)
    made: dict[str, Estimator] = {name: make(count) for name, make in ESTIMATORS.items()}
    whole = Trapezoid(count)
    found: dict[str, list[Tensor]] = {name: [] for name in (*made, WHOLE)}
    for x, labels in islice(moment.task.images("search").train(0), batches):
        outcome = moment.try_out(x, labels, moment.draw(len(x), generator))
        taught = outcome.mask_gradients[: math.ceil(len(x) * TAUGHT_SHARE)]
        seen = replace(outcome, mask_gradients=taught)
        for name, estimator in made.items():
            found[name].append(estimator(seen, moment.p))
        found[WHOLE].append(whole(outcome, moment.p))
    slope = (moment.p * (1 - moment.p)).clamp_min(torch.finfo(torch.float64).tiny)
    return {name: -torch.stack(values) / slope for name, values in found.items()}


def interventions(moment: Moment, agents: Tensor, batches: int, seed: int) -> Tensor:
    """Return how the mean loss rises as all images drop an agent, (batches, agents)."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for x, labels in islice(moment.task.images("search").train(1), batches):
        actions, answers = moment.draw(len(x), generator), moment.answers(x)
        rises = []
        for agent in agents.tolist():
            with_it, without = actions.clone(), actions.clone()
            with_it[:, agent], without[:, agent] = 1, 0
            dropped, kept = (moment.loss(x, labels, answers, a) for a in (without, with_it))
            rises.append(dropped - kept)
        found.append(torch.stack(rises))
        say(f"batch {len(found)} of {batches}")
    return torch.stack(found)


def figures(values: Tensor, truth: Tensor, price: Tensor) -> dict[str, float]:
    """Compare worths (batches, agents) with the truth (batches, agents)."""
    mean, true = values.mean(0), truth.mean(0)
    error = values.std(0) / len(values) ** 0.5
    return {
        "correlation": float(torch.corrcoef(torch.stack([mean, true]))[0, 1]),
        "order": order(true / price, mean / price),
        "wrong_sign": int(((mean > 0) != (true > 0)).sum()),
        "median_signal_to_noise": float((mean.abs() / error).median()),
    }


def order(one: Tensor, other: Tensor) -> float:
    """Return Spearman's rank correlation of two tensors of one axis without ties."""
    ranks = torch.stack([values.argsort().argsort().double() for values in (one, other)])
    return float(torch.corrcoef(ranks)[0, 1])


if __name__ == "__main__":
    main()
