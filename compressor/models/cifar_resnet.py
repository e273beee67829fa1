"""ResNets for 32-pixel pictures.

`CifarResNet` is the family of He et al. 2015, section 4.2 (https://arxiv.org/abs/1512.03385), with
the module names of akamaster/pytorch_resnet_cifar10, so that its published checkpoints load.
"""

import torch
from torch import nn
from torch.nn import functional as F

from compressor.errors import InputError
from compressor.models.layers import ChannelPad


class BasicBlock(nn.Module):
    """Two 3x3 convs beside a shortcut that is the identity or a zero-padded subsampling."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != channels:
            front = (channels - in_channels) // 2
            self.shortcut = ChannelPad(front, channels - in_channels - front, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return F.relu(self.shortcut(x) + out)


class CifarResNet(nn.Module):
    """ResNet of 6n + 2 layers: three stages of n blocks, 16, 32 and 64 channels wide.

    Args:
        depth: 6n + 2, for example 20, 32, 44, 56 or 110.
        num_classes: number of outputs.

    Input (N, 3, H, W), 32 px as published; output logits (N, num_classes).
    """

    def __init__(self, depth: int, num_classes: int = 10) -> None:
        super().__init__()
        if depth < 8 or (depth - 2) % 6:
            raise InputError(f"a CIFAR ResNet has 6n + 2 layers (8, 14, 20, ...), got {depth}")
        blocks = (depth - 2) // 6
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = _stage(16, 16, blocks, stride=1)
        self.layer2 = _stage(16, 32, blocks, stride=2)
        self.layer3 = _stage(32, 64, blocks, stride=2)
        self.linear = nn.Linear(64, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = F.relu(self.bn1(self.conv1(x)))  # (N, 16, H, W)
        out = self.layer1(out)
        out = self.layer2(out)  # (N, 32, H/2, W/2)
        out = self.layer3(out)  # (N, 64, H/4, W/4)
        out = F.adaptive_avg_pool2d(out, 1).flatten(1)  # (N, 64)
        logits: torch.Tensor = self.linear(out)
        return logits


def resnet18(num_classes: int = 10) -> nn.Module:
    """torchvision's ResNet-18 with a 3x3 stem of stride 1 and no max-pool; its key names are kept.

    11,173,962 parameters for 10 classes.
    """
    from torchvision import models

    model: nn.Module = models.resnet18(weights=None, num_classes=num_classes)
    model.conv1 = nn.Conv2d(3, 64, 3, stride=1, padding=1, bias=False)
    nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
    model.maxpool = nn.Identity()
    return model


def _stage(in_channels: int, channels: int, blocks: int, stride: int) -> nn.Sequential:
    first = BasicBlock(in_channels, channels, stride)
    return nn.Sequential(first, *(BasicBlock(channels, channels, 1) for _ in range(blocks - 1)))
