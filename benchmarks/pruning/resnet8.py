"""The ResNet-8 of MLPerf Tiny's image classification, which tiny files are compared with.

Source: mlcommons/tiny, benchmark/training/image_classification/keras_model.py, `resnet_v1_eembc`
with 16 filters, as in the published benchmark (Banbury et al. 2021, arXiv:2106.07597, table 1);
newer versions of that file also know 26 filters.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

ARCHITECTURE = "benchmarks.pruning.resnet8:resnet8"
"""The name by which `compressor.models.build_model` finds it."""


class Stack(nn.Module):
    """One block: two 3x3 convs with batch norm beside the input, or beside a bare 1x1 conv of it
    where the shape changes."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride=stride, padding=1)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1:
            self.shortcut = nn.Conv2d(in_channels, channels, 1, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return F.relu(self.shortcut(x) + out)


class ResNet8(nn.Module):
    """Three stacks of 16, 32 and 64 channels; 78,666 values with batch norm's statistics, as Keras
    counts them.

    Input (N, 3, H, W), 32 px as published; output logits (N, num_classes). It differs from the
    reference where the frameworks do: a stride of 2 pads one pixel on all sides instead of one at
    the end, and softmax is left to the loss.
    """

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(16)
        self.stack1 = Stack(16, 16, stride=1)
        self.stack2 = Stack(16, 32, stride=2)
        self.stack3 = Stack(32, 64, stride=2)
        self.linear = nn.Linear(64, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))  # (N, 16, H, W)
        out = self.stack1(out)
        out = self.stack2(out)  # (N, 32, H/2, W/2)
        out = self.stack3(out)  # (N, 64, H/4, W/4)
        logits: torch.Tensor = self.linear(F.adaptive_avg_pool2d(out, 1).flatten(1))
        return logits


def resnet8(num_classes: int = 10) -> ResNet8:
    """Return one with fresh weights."""
    return ResNet8(num_classes)
