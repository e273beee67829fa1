"""The search: agents choose while weights adapt, and what they are sure to drop goes for good.

One learner serves the paper's agents and the default ones; they differ in how probabilities come
about and how a batch teaches them.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compressor import ranks
from compressor.cost import as_tensor
from compressor.decore.agents import Agents
from compressor.decore.outcome import Outcome
from compressor.decore.projection import above_in_steps
from compressor.graph import Keep
from compressor.masks import ChannelMasks
from compressor.methods.joint import learn
from compressor.methods.method import PruneTask
from compressor.shrink import CouplingError, Shrinking, carry_momentum
from compressor.training import set_rate, sgd, teacher_answers
from compressor.verify import probe_images

_CERTAIN = 0.01
"""A channel that is kept less often than this is cut out while the search goes on."""

TAUGHT_SHARE = 0.125
"""Of a batch whose d loss / d action is taken: it only tells running means what to expect."""

_CUTS_PER_EPOCH = 4
_WORTH_A_CUT = 0.02
"""Share of the present cost that a cut must save: each one stops the training for a moment."""


@dataclass(frozen=True)
class SearchResult:
    """What the agents decided.

    Attributes:
        ranking: the agents' logits, shape (classes,); unlike probabilities they never tie at 1.
            Channels that were cut out on the way have -inf.
        probabilities: the agents' last keep probabilities, shape (classes,).
        left: the network with the weights that the search left it, and without those channels.
    """

    ranking: NDArray[np.float64]
    probabilities: NDArray[np.float64]
    left: Shrinking


def search(
    task: PruneTask, agents: Agents, *, cut_while_learning: bool = False, with_means: bool = False
) -> SearchResult:
    """Let the agents choose channels while the network's weights adapt.

    Every image of a batch has its own sampled actions. `projection` turns the result into a hard
    choice.

    Args:
        task: its network is trained in place until the first cut; use `SearchResult.left`
            afterwards. It must be whole.
        agents: count in the classes of the task's graph.
        cut_while_learning: cut channels out, in the task's steps, once their agents are certain;
            otherwise all of them stay in until the end.
        with_means: dropped channels give their means instead of zero, as in `ChannelMasks`.
    """
    learner = _AgentTraining(task, agents, cut_while_learning, with_means)
    learn(task, learner)
    learner.left.model.eval()
    probabilities = agents.probabilities(1.0).double().numpy()
    return SearchResult(agents.ranking().numpy(), probabilities, learner.left)


class _AgentTraining:
    """The network, its optimizer and the agents while they learn; `left` gets smaller."""

    def __init__(
        self, task: PruneTask, agents: Agents, cut_while_learning: bool, with_means: bool
    ) -> None:
        self.left = task.start
        self._task, self._agents = task, agents
        self._cuts, self._with_means = cut_while_learning, with_means
        task.compute.place(task.start.model)
        self._optimizer = sgd(task.start.model, task.recipe)
        self._steps = 0
        self._known: tuple[float, Tensor] | None = None

    def step(
        self, x: Tensor, labels: Tensor, progress: float, rate: float, generator: torch.Generator
    ) -> Mapping[str, float]:
        set_rate(self._optimizer, rate)
        probabilities = self._probabilities(progress)
        actions = self._agents.sample(probabilities, len(x), generator)
        outcome = self._try(actions, x, labels)
        reward = self._agents.learn(outcome, probabilities, progress)
        self._known = None
        self._steps += 1
        if self._cuts and self._steps % self._steps_per_cut == 0:
            self._cut_what_is_certain(probabilities)
        return {
            "loss": float(outcome.losses.mean()),
            f"train_{self._task.objective.score_key}": float(outcome.scores.mean()),
            "reward": reward,
        }

    def standing(self, progress: float) -> Mapping[str, float]:
        """Tell the observer of all agents; return how far they have come: expected cost, kept
        share, remaining doubt."""
        probabilities = self._probabilities(progress)
        self._task.observer.policy(progress, probabilities)
        p = probabilities.double().clamp(1e-9, 1 - 1e-9)
        entropy = -(p * p.log2() + (1 - p) * (1 - p).log2()).mean()
        return {
            "expected_load": float(self._task.limits.load(probabilities)),
            "kept_share": float(probabilities.mean()),
            "channels_left": float(len(self.left.classes)),
            "entropy_bits": float(entropy),
        }

    def state_dict(self) -> dict[str, Any]:
        return {
            "classes": torch.from_numpy(self.left.classes),
            "model": self.left.model.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "agents": self._agents.state_dict(),
            "steps": self._steps,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        keep = np.zeros(self._task.graph.class_count, dtype=np.bool_)
        keep[state["classes"].numpy()] = True
        if len(self.left.classes) < keep.sum():  # cut since then
            self.left = self._task.start
            self._optimizer = sgd(self.left.model, self._task.recipe)
        if len(self.left.classes) > keep.sum():
            self._cut(keep)
        self.left.model.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._agents.load_state_dict(state["agents"])
        self._known = None
        self._steps = int(state["steps"])

    def _probabilities(self, progress: float) -> Tensor:
        """Ask the agents once where one step ends and the next begins."""
        if self._known is None or self._known[0] != progress:
            self._known = progress, self._agents.probabilities(progress)
        return self._known[1]

    @property
    def _steps_per_cut(self) -> int:
        return max(1, self._task.images.steps_per_epoch // _CUTS_PER_EPOCH)

    def _try(self, actions: Tensor, x: Tensor, labels: Tensor) -> Outcome:
        """Run one batch under sampled actions and train the weights on it.

        Every process draws all actions and runs its own images; the outcome is that of the batch.
        """
        recipe, compute, objective = self._task.recipe, self._task.compute, self._task.objective
        share, taught = ranks.share(len(x)), math.ceil(len(x) * TAUGHT_SHARE)
        x, labels = share.of(x), share.of(labels)
        mask = share.of(actions).to(compute.device, torch.float32).requires_grad_()
        own_taught = share.first(taught)
        model, classes = self.left.model, torch.from_numpy(self.left.classes).to(mask.device)
        model.train()
        masks = ChannelMasks(model, self.left.graph, with_means=self._with_means)
        with masks, compute.arithmetic():
            answers = teacher_answers(self._task.teacher, x)
            masks.set(mask[:, classes], own_taught, share)
            outputs = model(x)
        losses = objective.losses(outputs, labels, answers, recipe)
        self._optimizer.zero_grad()
        loss = share.mean(losses)
        loss.backward()
        ranks.add_up(model, loss)
        self._optimizer.step()
        reference = torch.zeros_like(losses)
        if answers is not None:
            reference = objective.losses(answers, labels, answers, recipe)
        gradients = torch.zeros_like(mask) if mask.grad is None else mask.grad * share.divisor
        return Outcome(
            actions=actions,
            losses=share.union(losses.detach().cpu()),
            reference_losses=share.union(reference.cpu()),
            scores=share.union(objective.scores(outputs, labels).cpu()),
            mask_gradients=share.union(gradients[:own_taught].cpu(), taught),
        )

    def _cut_what_is_certain(self, probabilities: Tensor) -> None:
        """Cut out, in whole steps, what hardly any image keeps, if that saves enough."""
        task = self._task
        here = np.zeros(task.graph.class_count, dtype=np.bool_)
        here[self.left.classes] = True
        # The hard choice at the end may want one step more somewhere to fill the budget.
        keep = here & above_in_steps(
            probabilities.numpy(), task.graph, task.channel_step, _CERTAIN, spare_steps=1
        )
        costs = task.limits.costs
        saved = 1 - float(costs.macs(as_tensor(keep)) / costs.macs(as_tensor(here)))
        if saved >= _WORTH_A_CUT:
            with contextlib.suppress(CouplingError):  # then the masks do until the end
                self._cut(keep)

    def _cut(self, keep: Keep) -> None:
        smaller = self.left.without(keep, probe_images(self._task.images))
        self._task.compute.place(smaller.model)
        optimizer = sgd(smaller.model, self._task.recipe)
        carry_momentum(self.left, keep, smaller, self._optimizer, optimizer)
        self.left, self._optimizer = smaller, optimizer
        self._agents.forget(~torch.from_numpy(keep))
        self._known = None
