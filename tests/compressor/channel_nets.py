"""Networks and keep sets that the tests of the channel graph share."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compressor.graph import ChannelGraph, Keep, channel_graph
from compressor.masks import ChannelMasks
from compressor.slim import slim
from compressor.verify import mask_effect


def randomize(model: nn.Module, seed: int = 0) -> nn.Module:
    """Give norms statistics, scales and biases under which a misplaced mask shows."""
    g = torch.Generator().manual_seed(seed)
    for norm in model.modules():
        if isinstance(norm, nn.LayerNorm | nn.GroupNorm) and norm.weight is not None:
            norm.weight.data = torch.rand(norm.weight.shape, generator=g) + 0.5
            norm.bias.data = torch.randn(norm.bias.shape, generator=g) * 0.3
        if isinstance(norm, nn.modules.batchnorm._BatchNorm):
            n = norm.num_features
            norm.weight.data = torch.rand(n, generator=g) + 0.5
            norm.bias.data = torch.randn(n, generator=g) * 0.3
            norm.running_mean = torch.randn(n, generator=g) * 0.3
            norm.running_var = torch.rand(n, generator=g) + 0.5
    return model


def random_keep(graph: ChannelGraph, seed: int, share: float = 0.5, empty_every: int = 3) -> Keep:
    """Draw a keep set; every `empty_every`-th removable group goes as a whole."""
    rng = np.random.default_rng(seed)
    keep = rng.random(graph.class_count) < share
    removable = 0
    for group in graph.groups:
        if group.removable:
            if empty_every and removable % empty_every == 0:
                keep[group.classes] = False
            removable += 1
        elif not keep[group.classes].any():
            keep[rng.choice(group.classes)] = True
    return keep


def masked(model: nn.Module, graph: ChannelGraph, keep: Keep, x: Tensor) -> Tensor:
    """Return what the network answers with masks at the consumers."""
    masks = ChannelMasks(model, graph)
    with torch.no_grad(), masks:
        masks.set(torch.from_numpy(keep).to(x.dtype))
        return model(x)


def relative(found: Tensor, expected: Tensor) -> float:
    """Return the largest difference over the largest expected output."""
    return float((found - expected).abs().max() / expected.abs().max())


class Block(nn.Module):
    """A residual block with batch norms; `a + b` with the branch second."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, hidden, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(hidden)
        self.conv2 = nn.Conv2d(hidden, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(x + out)


class TinyResNet(nn.Module):
    """Stem, two blocks, head: the residual stream is one group, each block hides one."""

    def __init__(self, width: int = 4, hidden: int = 5, classes: int = 3) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.block1 = Block(width, hidden)
        self.block2 = Block(width, hidden)
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.norm(self.stem(x)))
        out = self.block2(self.block1(out))
        return self.head(out.mean((2, 3)))


def graph_of(model: nn.Module, side: int = 8) -> ChannelGraph:
    return channel_graph(model, torch.randn(1, 3, side, side))


def groups_of(graph: ChannelGraph) -> dict[tuple[str, ...], int]:
    """Producers -> number of classes."""
    return {group.producers: len(group.classes) for group in graph.groups}


def assert_exact(model: nn.Module, side: int = 8, seeds: int = 4, share: float = 0.5) -> None:
    """Slimmed equals masked for random keep sets, some with empty branches; and it trains.

    Masks that drop something must change the answer, or that would say nothing.
    """
    model = randomize(model).double().eval()
    graph = channel_graph(model, torch.randn(1, 3, side, side).double())
    x = torch.randn(3, 3, side, side).double()
    effects = []
    for seed in range(seeds):
        keep = random_keep(graph, seed, share=share, empty_every=seed % 3)
        slimmed = slim(model, graph, keep)
        with torch.no_grad():
            assert relative(slimmed(x), masked(model, graph, keep, x)) <= 1e-9
        if not keep.all():
            effects.append(mask_effect(model, graph, keep, x))
        slimmed.train()(x).sum().backward()
    assert not effects or max(effects) > 1e-3


class Wrapped(nn.Module):
    """Conv, a body that is being tested, conv, mean over the plane."""

    def __init__(self, body: nn.Module, width: int = 8, after: int | None = None) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, width, 3, padding=1)
        self.body = body
        self.last = nn.Conv2d(width if after is None else after, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.body(self.first(x))).mean((2, 3))


class Call(nn.Module):
    """A function as a module that symbolic tracing looks into."""

    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)
