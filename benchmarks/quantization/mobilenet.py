"""torchvision's MobileNetV2 for images of 32 pixels.

Five of its layers halve the image; at 32 pixels the last blocks would see a single one. Here the
stem and the first of the four halving blocks have stride 1, so that 4x4 pixels are left, as is
usual for CIFAR (https://github.com/kuangliu/pytorch-cifar, models/mobilenetv2.py). The weights are
those of torchvision's network, name by name.
"""

from __future__ import annotations

from torch import nn

ARCHITECTURE = "benchmarks.quantization.mobilenet:mobilenet_v2"
"""The name by which `compressor.models.build_model` finds it."""

_STRIDES = ("features.0.0", "features.2.conv.1.0")
"""The stem, and the depthwise convolution of the first halving block."""


def mobilenet_v2(num_classes: int = 10) -> nn.Module:
    """Return one with fresh weights: (N, 3, H, W) -> (N, num_classes), 32 px as intended."""
    from torchvision import models

    network: nn.Module = models.mobilenet_v2(weights=None, num_classes=num_classes)
    for name in _STRIDES:
        layer = network.get_submodule(name)
        if not isinstance(layer, nn.Conv2d) or layer.stride != (2, 2):
            raise RuntimeError(f"torchvision's mobilenet_v2 has changed: '{name}' is {layer}")
        layer.stride = (1, 1)
    return network
