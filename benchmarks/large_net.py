"""Nets of many weights and few multiplications, and a few images for them: for `bench_large.py`.

One block is two 3x3 convolutions of 1024 channels, batch norms between and a shortcut: 75.5 MB of
float32 weights, applied to 2 x 2 places.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

WIDTH = 1024
IMAGE_SIZE = 8
CLASSES = ("left", "right")
Split = tuple[NDArray[np.uint8], NDArray[np.int64]]


class Block(nn.Module):
    """x + two convolutions, [N, 1024, 2, 2] to the same."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(WIDTH, WIDTH, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(WIDTH)
        self.conv2 = nn.Conv2d(WIDTH, WIDTH, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.norm1(self.conv1(x)))
        return torch.relu(x + self.norm2(self.conv2(y)))


class LargeNet(nn.Module):
    """[N, 3, 8, 8] to logits [N, classes]."""

    def __init__(self, blocks: int, num_classes: int = 2) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, WIDTH, 4, stride=4)
        self.blocks = nn.Sequential(*(Block() for _ in range(blocks)))
        self.head = nn.Linear(WIDTH, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        y = self.blocks(torch.relu(self.stem(x)))  # [N, 1024, 2, 2]
        return self.head(y.mean((2, 3)))


FACTORIES = {blocks: f"net_{blocks}" for blocks in (1, 2, 5, 13, 20, 34)}
net_1, net_2, net_5, net_13, net_20, net_34 = (partial(LargeNet, blocks) for blocks in FACTORIES)


def images() -> tuple[Split, Split, tuple[str, ...]]:
    """40 training and 20 test images whose brighter half is their class."""
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (60, IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8)
    labels = np.arange(60) % len(CLASSES)
    for image, label in zip(pixels, labels, strict=True):
        image[:, : IMAGE_SIZE // 2] //= 1 + int(label)
        image[:, IMAGE_SIZE // 2 :] //= 2 - int(label)
    return (pixels[:40], labels[:40]), (pixels[40:], labels[40:]), CLASSES
