"""A small residual net, made-up images for it, and a folder of its files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from exporters import Exported

SIZE = 16
CLASSES = ("stripes", "columns", "checks", "plain")
INPUT_SHAPE = (3, SIZE, SIZE)


class PaddedShortcut(nn.Module):
    """Option A: every second pixel, then zero channels on both sides."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 4, 4))  # [N, 8, H, W] -> [N, 16, H/2, W/2]


class Constant(nn.Module):
    """What is left of a branch without channels: one value per channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.linspace(-0.3, 0.3, channels).view(1, channels, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.value


class Squeeze(nn.Module):
    """Squeeze and excitation."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.down = nn.Conv2d(channels, 4, 1)
        self.up = nn.Conv2d(4, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gate = self.up(F.relu(self.down(F.adaptive_avg_pool2d(x, 1))))
        return x * torch.sigmoid(gate)


class Block(nn.Module):
    def __init__(self, entry: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(entry, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut = nn.Identity() if stride == 1 else PaddedShortcut()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class SmallNet(nn.Module):
    """What slimmed nets bring: a padded pool, padded channels, a constant, a gate, a mean."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.block1 = Block(8, 8, 1)
        self.block2 = Block(8, 16, 2)
        self.empty = Constant(16)
        self.gate = Squeeze(16)
        self.block3 = Block(16, 16, 1)
        self.linear = nn.Linear(16, len(CLASSES))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 1, 1)
        x = self.block2(self.block1(x))
        x = F.relu(x + self.empty(x))
        x = self.block3(self.gate(x))
        return self.linear(x.mean((2, 3)))


def made_up_images(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """uint8 images [N, S, S, 3] with a pattern per class, and labels [N]."""
    rng = np.random.default_rng(seed)
    rows, columns = np.indices((SIZE, SIZE))
    patterns = np.stack([rows // 2 % 2, columns // 2 % 2, (rows // 2 + columns // 2) % 2, rows * 0])
    labels = np.arange(count) % len(CLASSES)
    contrast = rng.uniform(40, 110, (count, 1, 1, 1))
    colour = rng.uniform(60, 130, (count, 1, 1, 3))
    noise = rng.normal(0, 25, (count, SIZE, SIZE, 3))
    images = colour + contrast * patterns[labels][..., None] + noise
    return images.clip(0, 255).astype(np.uint8), labels


def normalised(images: np.ndarray) -> np.ndarray:
    """uint8 [N, H, W, 3] -> float32 [N, 3, H, W]."""
    values = (images / 255 - 0.5) / 0.25
    return np.ascontiguousarray(values.transpose(0, 3, 1, 2), np.float32)


def stream(images: np.ndarray, size: int) -> Iterator[np.ndarray]:
    for start in range(0, len(images), size):
        yield images[start : start + size]


@dataclass(frozen=True)
class Folder:
    """A folder of exported files with what they were made from."""

    path: Path
    files: tuple[Exported, ...]
    model: nn.Module
    notices: tuple[str, ...]

    def file(self, name: str) -> Exported:
        return next(file for file in self.files if file.name == name)
