"""What the stopped jobs compress: a network of two convolutions, and a loss that can fail."""

from __future__ import annotations

import os

import torch
from torch import Tensor, nn
from torch.nn import functional as F

NETWORK = "benchmarks.crash.network:small"
LOSS = "benchmarks.crash.network:loss"
NAN_CALLS = "CRASH_NAN_CALLS"
"""Environment variable: "40" lets the 40th loss of a process be NaN, "40-" all from there on."""

_calls = 0


class Small(nn.Module):
    """(N, 3, H, W) -> (N, classes); dropout draws from torch's global generator."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 24, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(24)
        self.conv2 = nn.Conv2d(24, 32, 3, stride=2, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(32)
        self.dropout = nn.Dropout(0.1)
        self.head = nn.Linear(32, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = F.relu(self.bn2(self.conv2(out))).mean((2, 3))  # (N, 32)
        logits: Tensor = self.head(self.dropout(out))
        return logits


def small(num_classes: int) -> nn.Module:
    """Return one with fresh weights."""
    return Small(num_classes)


def loss(outputs: Tensor, labels: Tensor) -> Tensor:
    """Return the cross-entropy of every image, (N,), or NaN where NAN_CALLS says so."""
    global _calls
    _calls += 1
    found = F.cross_entropy(outputs, labels, reduction="none")
    first, dash, _ = os.environ.get(NAN_CALLS, "").partition("-")
    broken = bool(first) and (_calls == int(first) or (bool(dash) and _calls > int(first)))
    return found * torch.nan if broken else found
