"""The search: agents choose while weights adapt, and what they are sure to drop goes for good.

One loop serves the paper's agents and the default ones; they differ in how probabilities come about
and how a batch teaches them.
"""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from compressor.checkpoint import Checkpoint, random_state, restore_random_state
from compressor.compute import Compute
from compressor.cost import Limits, as_tensor
from compressor.decore.agents import Agents
from compressor.decore.outcome import Outcome
from compressor.decore.projection import above_in_steps
from compressor.graph import ChannelGraph, Keep
from compressor.masks import ChannelMasks
from compressor.shrink import CouplingError, Shrinking, carry_momentum
from compressor.training import (
    Images,
    Observer,
    Recipe,
    image_losses,
    set_rate,
    sgd,
    teacher_answers,
)

_CERTAIN = 0.01
"""A channel that is kept less often than this is cut out while the search goes on."""

_CUTS_PER_EPOCH = 4
_WORTH_A_CUT = 0.02
"""Share of the present cost that a cut must save: each one stops the training for a moment."""

_VERIFIED_IMAGES = 4


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
    model: nn.Module,
    graph: ChannelGraph,
    agents: Agents,
    limits: Limits,
    images: Images,
    recipe: Recipe,
    compute: Compute,
    *,
    seed: int,
    checkpoint: Checkpoint,
    observer: Observer,
    teacher: nn.Module | None = None,
    channel_step: int | None = None,
    with_means: bool = False,
) -> SearchResult:
    """Let the agents choose channels while the network's weights adapt.

    Every image of a batch has its own sampled actions. Goes on from the checkpoint where there is
    one; every epoch draws from its own seed, so a resumed search equals an undisturbed one.
    `projection` turns the result into a hard choice.

    Args:
        model: trained in place until the first cut; use `SearchResult.left` afterwards.
        graph: its channel graph; agents, limits and the result count in its classes.
        channel_step: multiple in which channels are cut out once their agents are certain; None
            leaves all of them in until the end.
        with_means: dropped channels give their means instead of zero, as in `ChannelMasks`.
    """
    loop = _Loop(model, graph, agents, limits, images, recipe, compute, observer, teacher)
    loop.channel_step, loop.with_means = channel_step, with_means
    first = loop.restore(checkpoint.load())
    for epoch in range(first, recipe.epochs):
        observer.epoch("search", epoch + 1, loop.run_epoch(epoch, seed))
        checkpoint.save(loop.state(epoch + 1))
    left = loop.left
    left.model.eval()
    probabilities = agents.probabilities(1.0).double().numpy()
    return SearchResult(agents.ranking().numpy(), probabilities, left)


class _Loop:
    """The network, its optimizer and the agents while they learn; `left` gets smaller."""

    def __init__(
        self,
        model: nn.Module,
        graph: ChannelGraph,
        agents: Agents,
        limits: Limits,
        images: Images,
        recipe: Recipe,
        compute: Compute,
        observer: Observer,
        teacher: nn.Module | None,
    ) -> None:
        self.channel_step: int | None = None
        self.with_means = False
        self.left = Shrinking.whole(compute.place(model), graph)
        self._graph, self._agents, self._limits = graph, agents, limits
        self._images, self._recipe, self._compute = images, recipe, compute
        self._observer, self._teacher = observer, teacher
        self._optimizer = sgd(model, recipe)

    def state(self, epochs_done: int) -> dict[str, Any]:
        """Return what a resumed search needs."""
        return {
            "classes": torch.from_numpy(self.left.classes),
            "model": self.left.model.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "agents": self._agents.state_dict(),
            "epoch": epochs_done,
            "random": random_state(),
        }

    def restore(self, state: dict[str, Any] | None) -> int:
        """Go back to a saved state; return the number of epochs that it has behind it."""
        if state is None:
            return 0
        keep = np.zeros(self._graph.class_count, dtype=np.bool_)
        keep[state["classes"].numpy()] = True
        self._cut(keep)
        self.left.model.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._agents.load_state_dict(state["agents"])
        restore_random_state(state["random"])
        return int(state["epoch"])

    def run_epoch(self, epoch: int, seed: int) -> dict[str, float]:
        generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        steps = self._images.steps_per_epoch
        total = steps * self._recipe.epochs
        sums = {"loss": 0.0, "reward": 0.0, "train_top1": 0.0}
        values: dict[str, float] = {}
        for step, (x, labels) in enumerate(self._images.train(epoch)):
            done = epoch * steps + step
            progress = done / total
            set_rate(self._optimizer, self._recipe.rate(progress))
            probabilities = self._agents.probabilities(progress)
            actions = self._agents.sample(probabilities, len(x), generator)
            outcome = self._try(actions, x, labels)
            sums["loss"] += float(outcome.losses.mean())
            sums["train_top1"] += float(outcome.right.float().mean())
            sums["reward"] += self._agents.learn(outcome, probabilities, progress)
            values = {name: value / (step + 1) for name, value in sums.items()}
            self._observer.step("search", done + 1, total, values | self._spread(probabilities))
            if (step + 1) % max(1, steps // _CUTS_PER_EPOCH) == 0:
                self._cut_what_is_certain(probabilities)
        if not math.isfinite(sums["loss"]):
            raise FloatingPointError(
                f"the loss became {sums['loss']} in epoch {epoch + 1} of the search; "
                "lower --learning-rate"
            )
        return values | self._spread(self._agents.probabilities((epoch + 1) / self._recipe.epochs))

    def _try(self, actions: Tensor, x: Tensor, labels: Tensor) -> Outcome:
        """Run one batch under sampled actions and train the weights on it."""
        x, labels = self._compute.images(x), labels.to(self._compute.device)
        mask = actions.to(self._compute.device, torch.float32).requires_grad_()
        model, classes = self.left.model, torch.from_numpy(self.left.classes).to(mask.device)
        model.train()
        masks = ChannelMasks(model, self.left.graph, with_means=self.with_means)
        with masks, self._compute.arithmetic():
            answers = teacher_answers(self._teacher, x)
            masks.set(mask[:, classes])
            logits = model(x)
        losses = image_losses(logits, labels, answers, self._recipe)
        self._optimizer.zero_grad()
        losses.mean().backward()
        self._optimizer.step()
        reference = torch.zeros_like(losses)
        if answers is not None:
            reference = image_losses(answers, labels, answers, self._recipe)
        gradients = mask.grad * len(x) if mask.grad is not None else torch.zeros_like(mask)
        return Outcome(
            actions=actions,
            losses=losses.detach().cpu(),
            reference_losses=reference.cpu(),
            right=(logits.argmax(dim=1) == labels).cpu(),
            mask_gradients=gradients.cpu(),
        )

    def _cut_what_is_certain(self, probabilities: Tensor) -> None:
        """Cut out, in whole steps, what hardly any image keeps, if that saves enough."""
        if self.channel_step is None:
            return
        here = np.zeros(self._graph.class_count, dtype=np.bool_)
        here[self.left.classes] = True
        # The hard choice at the end may want one step more somewhere to fill the budget.
        keep = here & above_in_steps(
            probabilities.numpy(), self._graph, self.channel_step, _CERTAIN, spare_steps=1
        )
        costs = self._limits.costs
        saved = 1 - float(costs.macs(as_tensor(keep)) / costs.macs(as_tensor(here)))
        if saved >= _WORTH_A_CUT:
            with contextlib.suppress(CouplingError):  # then the masks do until the end
                self._cut(keep)

    def _cut(self, keep: Keep) -> None:
        images = next(iter(self._images.validation()))[0][:_VERIFIED_IMAGES]
        smaller = self.left.without(keep, images)
        self._compute.place(smaller.model)
        optimizer = sgd(smaller.model, self._recipe)
        carry_momentum(self.left, keep, smaller, self._optimizer, optimizer)
        self.left, self._optimizer = smaller, optimizer
        self._agents.forget(~torch.from_numpy(keep))

    def _spread(self, probabilities: Tensor) -> dict[str, float]:
        """Return how far the agents have come: expected cost, kept share, remaining doubt."""
        p = probabilities.double().clamp(1e-9, 1 - 1e-9)
        entropy = -(p * p.log2() + (1 - p) * (1 - p).log2()).mean()
        return {
            "expected_load": float(self._limits.load(probabilities)),
            "kept_share": float(probabilities.mean()),
            "channels_left": float(len(self.left.classes)),
            "entropy_bits": float(entropy),
        }
