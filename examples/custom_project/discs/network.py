"""The network: a small U-Net."""

import torch
from torch import Tensor, nn


def unet(num_classes: int) -> nn.Module:
    """Return the network; compress-export calls this with the number of names in the data."""
    return UNet(num_classes)


class UNet(nn.Module):
    """(N, 3, H, W) to one map of logits for each name, (N, names, H, W); H and W divide by 4."""

    def __init__(self, names: int) -> None:
        super().__init__()
        self.fine = _block(3, 16)
        self.middle = _block(16, 32)
        self.coarse = _block(32, 32)
        self.join_middle = _block(32 + 32, 32)
        self.join_fine = _block(32 + 16, 16)
        self.shrink = nn.MaxPool2d(2)
        self.grow = nn.Upsample(scale_factor=2, mode="nearest")
        self.head = nn.Conv2d(16, names, 1)

    def forward(self, x: Tensor) -> Tensor:
        fine = self.fine(x)  # (N, 16, H, W)
        middle = self.middle(self.shrink(fine))  # (N, 32, H/2, W/2)
        coarse = self.coarse(self.shrink(middle))  # (N, 32, H/4, W/4)
        middle = self.join_middle(torch.cat((self.grow(coarse), middle), dim=1))
        fine = self.join_fine(torch.cat((self.grow(middle), fine), dim=1))
        return self.head(fine)


def _block(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
    )
