"""Networks small enough to run a whole job on them: `tiny_networks:two_blocks`."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval


class Block(nn.Module):
    """Two convolutions and a shortcut, added in place as torchvision's blocks do."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut = nn.Sequential(
            nn.Conv2d(inputs, width, 1, stride=2, bias=False), nn.BatchNorm2d(width)
        )
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        y += self.shortcut(x)
        return self.relu(y)


class TwoBlocks(nn.Module):
    """(N, 3, H, W) -> (N, classes); dropout draws from torch's global generator."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU()
        )
        self.blocks = nn.Sequential(Block(32, 32), Block(32, 64))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(0.1)
        self.head = nn.Linear(64, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        features = self.pool(self.blocks(self.stem(x))).flatten(1)  # (N, 64)
        return self.head(self.dropout(features))


def two_blocks(num_classes: int) -> nn.Module:
    return TwoBlocks(num_classes)


def only_8_pixels(num_classes: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, num_classes))


def only_16_pixels(num_classes: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, num_classes))


class Branches(nn.Module):
    """3x3 and 1x1 side by side, as RepVGG trains; export merges them."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.wide = nn.Sequential(
            nn.Conv2d(inputs, width, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(width)
        )
        self.narrow = nn.Sequential(
            nn.Conv2d(inputs, width, 1, stride=2, bias=False), nn.BatchNorm2d(width)
        )
        self.merged: nn.Conv2d | None = None

    def forward(self, x: Tensor) -> Tensor:
        y = self.wide(x) + self.narrow(x) if self.merged is None else self.merged(x)
        return F.relu(y)

    def reparameterize(self) -> None:
        if self.merged is not None:
            return
        with torch.no_grad():
            merged, narrow = (fuse_conv_bn_eval(*branch) for branch in (self.wide, self.narrow))
            merged.weight += F.pad(narrow.weight, [1, 1, 1, 1])
            merged.bias += narrow.bias
        self.merged = merged
        del self.wide, self.narrow


def with_branches(num_classes: int) -> nn.Module:
    pool = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, num_classes))
    return nn.Sequential(Branches(3, 32), Branches(32, 64), Branches(64, 64), *pool)
