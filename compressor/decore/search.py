"""The search: agents choose while weights adapt.

One loop serves the paper's agents and the default ones; they differ in how probabilities come about
and how a batch teaches them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from compressor.checkpoint import Checkpoint, random_state, restore_random_state
from compressor.compute import Compute
from compressor.cost import Limits
from compressor.decore.agents import Agents, Outcome
from compressor.decore.policy import sample_actions
from compressor.graph import ChannelGraph
from compressor.masks import ChannelMasks
from compressor.training import (
    Images,
    Observer,
    Recipe,
    image_losses,
    set_rate,
    sgd,
    teacher_answers,
)


@dataclass(frozen=True)
class SearchResult:
    """What the agents decided.

    Attributes:
        ranking: the agents' logits, shape (classes,); unlike probabilities they never tie at 1.
        probabilities: the agents' last keep probabilities, shape (classes,).
    """

    ranking: NDArray[np.float64]
    probabilities: NDArray[np.float64]


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
) -> SearchResult:
    """Let the agents choose channels while the network's weights adapt, in place.

    Every image of a batch has its own sampled actions. Goes on from the checkpoint where there is
    one; every epoch draws from its own seed, so a resumed search equals an undisturbed one.
    `projection` turns the result into a hard choice.
    """
    compute.place(model)
    optimizer = sgd(model, recipe)
    state = checkpoint.load()
    first = 0
    if state is not None:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        agents.load_state_dict(state["agents"])
        first = state["epoch"]
        restore_random_state(state["random"])
    loop = _Loop(
        model, graph, agents, limits, images, recipe, compute, optimizer, observer, teacher
    )
    with ChannelMasks(model, graph) as masks:
        for epoch in range(first, recipe.epochs):
            model.train()
            observer.epoch("search", epoch + 1, loop.run_epoch(masks, epoch, seed))
            checkpoint.save(
                {
                    "model": model.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "agents": agents.state_dict(),
                    "epoch": epoch + 1,
                    "random": random_state(),
                }
            )
    model.eval()
    return SearchResult(agents.ranking().numpy(), agents.probabilities(1.0).double().numpy())


@dataclass
class _Loop:
    """One epoch of the search and what it needs."""

    model: nn.Module
    graph: ChannelGraph
    agents: Agents
    limits: Limits
    images: Images
    recipe: Recipe
    compute: Compute
    optimizer: torch.optim.Optimizer
    observer: Observer
    teacher: nn.Module | None

    def run_epoch(self, masks: ChannelMasks, epoch: int, seed: int) -> dict[str, float]:
        generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        steps = self.images.steps_per_epoch
        total = steps * self.recipe.epochs
        sums = {"loss": 0.0, "reward": 0.0, "train_top1": 0.0}
        values: dict[str, float] = {}
        for step, (x, labels) in enumerate(self.images.train(epoch)):
            done = epoch * steps + step
            progress = done / total
            set_rate(self.optimizer, self.recipe.rate(progress))
            probabilities = self.agents.probabilities(progress)
            actions = sample_actions(probabilities, len(x), generator)
            outcome = self._try(masks, actions, x, labels)
            sums["loss"] += float(outcome.losses.mean())
            sums["train_top1"] += float(outcome.right.float().mean())
            sums["reward"] += self.agents.learn(outcome, probabilities, progress)
            values = {name: value / (step + 1) for name, value in sums.items()}
            self.observer.step("search", done + 1, total, values | self._spread(probabilities))
        if not math.isfinite(sums["loss"]):
            raise FloatingPointError(
                f"the loss became {sums['loss']} in epoch {epoch + 1} of the search; "
                "lower --learning-rate"
            )
        return values | self._spread(self.agents.probabilities((epoch + 1) / self.recipe.epochs))

    def _try(self, masks: ChannelMasks, actions: Tensor, x: Tensor, labels: Tensor) -> Outcome:
        """Run one batch under sampled actions and train the weights on it."""
        x, labels = self.compute.images(x), labels.to(self.compute.device)
        mask = actions.to(self.compute.device, torch.float32).requires_grad_()
        with self.compute.arithmetic():
            answers = teacher_answers(self.teacher, x)
            masks.set(mask)
            logits = self.model(x)
        losses = image_losses(logits, labels, answers, self.recipe)
        self.optimizer.zero_grad()
        losses.mean().backward()
        self.optimizer.step()
        reference = torch.zeros_like(losses)
        if answers is not None:
            reference = image_losses(answers, labels, answers, self.recipe)
        gradients = mask.grad * len(x) if mask.grad is not None else torch.zeros_like(mask)
        return Outcome(
            actions=actions,
            losses=losses.detach().cpu(),
            reference_losses=reference.cpu(),
            right=(logits.argmax(dim=1) == labels).cpu(),
            mask_gradients=gradients.cpu(),
        )

    def _spread(self, probabilities: Tensor) -> dict[str, float]:
        """Return how far the agents have come: expected cost, kept share, remaining doubt."""
        p = probabilities.double().clamp(1e-9, 1 - 1e-9)
        entropy = -(p * p.log2() + (1 - p) * (1 - p).log2()).mean()
        return {
            "expected_load": float(self.limits.load(probabilities)),
            "kept_share": float(probabilities.mean()),
            "entropy_bits": float(entropy),
        }
