"""Networks that answer for every pixel: a U-Net, a feature pyramid."""

from __future__ import annotations

import pytest
import torch
from channel_nets import random_keep, randomize
from torch import Tensor, nn
from torch.nn import functional as F

from compressor.cost import NetworkCosts, as_tensor
from compressor.graph import channel_graph
from compressor.graph.channel_graph import FIXED_CLASS
from compressor.slim import slim
from compressor.verify import check_slim, mask_effect


def conv(ins: int, outs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(ins, outs, 3, stride, 1, bias=False), nn.BatchNorm2d(outs), nn.ReLU()
    )


class UNet(nn.Module):
    """Two levels; upsampling by transposed convolution or bilinear."""

    def __init__(self, transposed: bool) -> None:
        super().__init__()
        self.down1, self.down2, self.bottom = conv(3, 6), conv(6, 8), conv(8, 10)
        if transposed:
            self.up2: nn.Module = nn.ConvTranspose2d(10, 8, 2, 2)
            self.up1: nn.Module = nn.ConvTranspose2d(8, 6, 2, 2)
        else:
            self.up2 = nn.Sequential(nn.Upsample(scale_factor=2, mode="bilinear"), conv(10, 8))
            self.up1 = nn.Sequential(nn.Upsample(scale_factor=2, mode="bilinear"), conv(8, 6))
        self.merge2, self.merge1 = conv(16, 8), conv(12, 6)
        self.head = nn.Conv2d(6, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        a = self.down1(x)
        b = self.down2(F.max_pool2d(a, 2))
        c = self.bottom(F.max_pool2d(b, 2))
        d = self.merge2(torch.cat((b, self.up2(c)), 1))
        e = self.up1(d)
        if e.shape[-2:] != a.shape[-2:]:
            e = F.interpolate(e, size=a.shape[-2:])
        return self.head(self.merge1(torch.cat((a, e), 1)))


class Pyramid(nn.Module):
    """A feature pyramid (Lin et al. 2016): a sum from the top down, an answer for each level."""

    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.ModuleList([conv(3, 6, 2), conv(6, 8, 2), conv(8, 10, 2)])
        self.lateral = nn.ModuleList(nn.Conv2d(width, 7, 1) for width in (6, 8, 10))
        self.smooth = nn.ModuleList(nn.Conv2d(7, 5, 3, padding=1) for _ in range(3))
        self.classes, self.boxes = nn.Conv2d(5, 3, 1), nn.Conv2d(5, 4, 1)

    def forward(self, x: Tensor) -> dict[str, list[Tensor]]:
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        found = [self.lateral[2](features[2])]
        for level in (1, 0):
            side = self.lateral[level](features[level])
            found.append(side + F.interpolate(found[-1], size=side.shape[-2:], mode="nearest"))
        levels = [F.relu(smooth(y)) for smooth, y in zip(self.smooth, found[::-1], strict=True)]
        return {
            "classes": [self.classes(y) for y in levels],
            "boxes": [self.boxes(y) for y in levels],
        }


@pytest.mark.parametrize("transposed", [True, False])
def test_unet(transposed: bool) -> None:
    torch.manual_seed(0)
    model = randomize(UNet(transposed)).eval()
    x = torch.randn(2, 3, 16, 16)
    graph = channel_graph(model, x[:1])
    assert graph.fixed.keys() == {"output"}
    fixed = {layer.module for layer in graph.layers if (layer.out_classes == FIXED_CLASS).any()}
    assert fixed == {"head"}
    for seed in range(3):
        keep = random_keep(graph, seed)
        slimmed = slim(model, graph, keep)
        assert check_slim(model, graph, keep, slimmed, x) <= 1e-9
        assert mask_effect(model, graph, keep, x) > 1e-3
        assert slimmed(x).shape == (2, 4, 16, 16)
        slimmed.train()(x).sum().backward()


def test_pyramid_with_shared_heads() -> None:
    torch.manual_seed(0)
    model = randomize(Pyramid()).eval()
    x = torch.randn(2, 3, 24, 24)
    graph = channel_graph(model, x[:1])
    streams = {group.producers for group in graph.groups if len(group.producers) > 1}
    # The sum ties the laterals; the heads that all levels share tie what they read.
    assert streams == {
        ("lateral.2", "lateral.1", "lateral.0"),
        ("smooth.0", "smooth.1", "smooth.2"),
    }
    layers = {layer.module: layer for layer in graph.layers}
    assert layers["classes"].calls == 3
    assert layers["classes"].macs_per_pair == 12 * 12 + 6 * 6 + 3 * 3
    before = float(NetworkCosts(graph).macs(as_tensor(graph.all_kept())))
    for seed in range(3):
        keep = random_keep(graph, seed)
        slimmed = slim(model, graph, keep)
        assert check_slim(model, graph, keep, slimmed, x) <= 1e-9
        assert mask_effect(model, graph, keep, x) > 1e-3
        again = channel_graph(slimmed, x[:1])
        macs = float(NetworkCosts(again).macs(as_tensor(again.all_kept())))
        assert macs == float(NetworkCosts(graph).macs(as_tensor(keep))) < before
