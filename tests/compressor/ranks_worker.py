"""What each process of `test_ranks` does: trains and searches, then saves what it has."""

from __future__ import annotations

import contextlib
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from decore_toys import Notes, TinyNet, ToyImages
from test_methods_search import task_of
from torch import nn

from compressor import ranks
from compressor.checkpoint import Checkpoint
from compressor.compute import Compute
from compressor.methods.registry import METHODS
from compressor.training import Batch, Recipe, fit

FLOAT32 = Compute(torch.device("cpu"), mixed_precision=False)


class FrozenNorm(nn.BatchNorm2d):
    """Normalizes by its running statistics, also while training."""

    def train(self, mode: bool = True) -> FrozenNorm:
        return super().train(False)


class SmallLastBatch(ToyImages):
    """The last batch has fewer images than any number of processes could share."""

    def train(self, epoch: int) -> Any:
        *others, (x, labels) = super().train(epoch)
        yield from others
        yield x[:3], labels[:3]

    def validation(self) -> list[Batch]:
        return list(zip(self.x.split(10), self.labels.split(10), strict=True))


def net(frozen: bool) -> TinyNet:
    torch.manual_seed(1)
    model = TinyNet(width=12)
    if frozen:
        model.bn1 = FrozenNorm(12).eval()
    with torch.no_grad():
        model.bn1.running_mean.uniform_(-0.2, 0.2)
        model.bn1.running_var.uniform_(0.5, 1.5)
    return model


def trained(frozen: bool) -> dict[str, Any]:
    """Return losses, score and weights of a training."""
    model, notes = net(frozen), Notes()
    score = fit(
        model,
        SmallLastBatch(),
        Recipe(3, 0.1, gradient_norm=1.0),
        FLOAT32,
        stage="fit",
        checkpoint=Checkpoint(None),
        observer=notes,
    )
    losses = [values["loss"] for _, _, values in notes.epochs]
    return {"score": score, "losses": losses, "weights": model.state_dict()}


def searched() -> dict[str, Any]:
    """Return choice, ranking and weights of a search by the default agents."""
    task = replace(task_of(net(frozen=True)), images=SmallLastBatch())
    choice = METHODS["decore"](task)
    return {
        "keep": choice.keep.tolist(),
        "left": choice.left.classes.tolist(),
        "ranking": torch.from_numpy(choice.ranking),
        "weights": choice.left.model.state_dict(),
    }


def everything() -> dict[str, Any]:
    """Return what a process ends with."""
    return {"frozen": trained(True), "plain": trained(False), "search": searched()}


if __name__ == "__main__":
    torch.set_num_threads(1)
    with ranks.joined() if "TORCHELASTIC_RUN_ID" in os.environ else contextlib.nullcontext():
        first = ranks.from_first(lambda: {"from": [ranks.rank(), torch.tensor([0.5])]})
        torch.save({**everything(), "first": first}, Path(sys.argv[1]) / f"{ranks.rank()}.pt")
