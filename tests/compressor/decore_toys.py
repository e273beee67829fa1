"""Toy policies whose expectations can be enumerated, and tiny data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compressor.training import Batch


def all_actions(agents: int) -> Tensor:
    """Return every choice of keep and drop, shape (2 ** agents, agents)."""
    return torch.tensor(list(product((0.0, 1.0), repeat=agents)), dtype=torch.float64)


def chances(actions: Tensor, p: Tensor) -> Tensor:
    """Return the probability of each row of actions."""
    return (actions * p + (1 - actions) * (1 - p)).prod(dim=1)


class TinyNet(nn.Module):
    """Four hidden channels between two convolutions, dropout before the head."""

    def __init__(self, dropout: float = 0.0, width: int = 4) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x))).mean((2, 3))
        return self.head(self.dropout(out))


class ToyImages:
    """48 images of three classes that differ in colour; `train` is the same for the same epoch."""

    steps_per_epoch = 3

    def __init__(self) -> None:
        g = torch.Generator().manual_seed(7)
        self.labels = torch.arange(48) % 3
        shift = F.one_hot(self.labels, 3)[:, :, None, None] * 1.5
        self.x = torch.randn(48, 3, 6, 6, generator=g) + shift

    def train(self, epoch: int) -> Iterator[Batch]:
        order = torch.randperm(48, generator=torch.Generator().manual_seed(epoch))
        for part in order.chunk(self.steps_per_epoch):
            yield self.x[part], self.labels[part]

    def validation(self) -> Iterator[Batch]:
        yield self.x[:24], self.labels[:24]
        yield self.x[24:], self.labels[24:]


class Notes:
    """An observer that remembers, and can stop the work like a killed process."""

    def __init__(self, stop_in_epoch: int | None = None) -> None:
        self.epochs: list[tuple[str, int, dict[str, float]]] = []
        self.steps: list[dict[str, float]] = []
        self.setbacks: list[tuple[str, str]] = []
        self._stop = stop_in_epoch

    def step(self, stage: str, done: int, total: int, values: Mapping[str, float]) -> None:
        self.steps.append(dict(values))
        if self._stop is not None and len(self.epochs) + 1 == self._stop:
            raise KeyboardInterrupt

    def epoch(self, stage: str, epoch: int, values: Mapping[str, float]) -> None:
        self.epochs.append((stage, epoch, dict(values)))

    def setback(self, stage: str, text: str) -> None:
        self.setbacks.append((stage, text))

    def policy(self, progress: float, probabilities: Tensor) -> None:
        """Of no interest to these tests."""
