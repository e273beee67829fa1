"""Layers of the built-in networks that PyTorch does not have."""

import torch
from torch import nn
from torch.nn import functional as F


class ChannelPad(nn.Module):
    """Shortcut without parameters: subsample the picture, pad zero channels before and after.

    "Option A" of He et al. 2015 (https://arxiv.org/abs/1512.03385, section 4.2).

    Attributes:
        front, back: number of zero channels put before and after the input's. Plain integers read
            at each call, so that slimming can edit them.
        stride: step in pixels, both ways.
    """

    def __init__(self, front: int, back: int, stride: int) -> None:
        super().__init__()
        self.front = front
        self.back = back
        self.stride = stride

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # A pool of one pixel is what a strided slice is; XNNPACK runs pools, not strided slices.
        x = F.max_pool2d(x, 1, self.stride)  # (N, C, H, W) -> (N, C, H/stride, W/stride)
        return F.pad(x, (0, 0, 0, 0, self.front, self.back))  # (N, front + C + back, ...)

    def extra_repr(self) -> str:
        return f"front={self.front}, back={self.back}, stride={self.stride}"
