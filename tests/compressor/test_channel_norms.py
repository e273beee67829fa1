"""Norms whose statistics run over channels: dropped channels don't count in them."""

from __future__ import annotations

import pytest
import torch
from channel_nets import Call, Wrapped, assert_exact, graph_of, groups_of, randomize
from torch import Tensor, nn
from torch.nn import functional as F

from compressor.graph import channel_graph
from compressor.joint_norm import masked_norm
from compressor.slim import slim


class LayerNorm2d(nn.LayerNorm):
    """Layer norm of feature maps, as torchvision and timm write it."""

    def forward(self, x: Tensor) -> Tensor:
        x = F.layer_norm(
            x.permute(0, 2, 3, 1), self.normalized_shape, self.weight, self.bias, self.eps
        )
        return x.permute(0, 3, 1, 2)


class Tokens(nn.Module):
    """Layer norm and a small MLP with channels last."""

    def __init__(self, width: int = 8, affine: bool = True) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=affine)
        self.up, self.down = nn.Linear(width, 12), nn.Linear(12, width)

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        tokens = x.flatten(2).transpose(1, 2)  # (N, C, H, W) -> (N, HW, C)
        tokens = tokens + self.down(F.gelu(self.up(self.norm(tokens))))
        return tokens.transpose(1, 2).reshape(n, c, h, w)


@pytest.mark.parametrize("norm", [nn.LayerNorm(6), LayerNorm2d(6), nn.GroupNorm(1, 6)])
@pytest.mark.parametrize("kept", [[0, 1, 2, 3, 4, 5], [1, 2, 5], [4]])
def test_masked_norm_is_the_smaller_norm(norm: nn.Module, kept: list[int]) -> None:
    """Against PyTorch's own layer of the smaller width."""
    norm = randomize(norm).double()
    axis = -1 if type(norm) is nn.LayerNorm else 1
    x = torch.randn(2, 6, 5, 5).double()
    x = x.movedim(1, -1) if axis == -1 else x
    mask = torch.zeros(6).double()
    mask[kept] = 1
    found = masked_norm(norm, x, mask.reshape([-1 if a == axis % 4 else 1 for a in range(4)]), axis)
    index = torch.tensor(kept)
    weight, bias, part = norm.weight[index], norm.bias[index], x.index_select(axis, index)
    if isinstance(norm, nn.GroupNorm):
        expected = F.group_norm(part, 1, weight, bias, norm.eps)
    else:
        last = part.movedim(axis, -1)
        expected = F.layer_norm(last, (len(kept),), weight, bias, norm.eps).movedim(-1, axis)
    torch.testing.assert_close(found.index_select(axis, index), expected)


@pytest.mark.parametrize("affine", [True, False])
def test_layer_norm_follows_its_stream(affine: bool) -> None:
    graph = graph_of(Wrapped(Tokens(affine=affine)))
    assert groups_of(graph) == {("first", "body.down"): 8, ("body.up",): 12}
    assert [norm.module for norm in graph.joint_norms] == ["body.norm"]
    keep = graph.all_kept()
    keep[[1, 2, 7]] = False
    slimmed = slim(Wrapped(Tokens(affine=affine)), graph, keep)
    assert slimmed.body.norm.normalized_shape == (5,)
    assert_exact(Wrapped(Tokens(affine=affine)))


# Without the ReLU the mean over each plane would be 0 whatever is dropped.
PLANES = nn.Sequential(nn.InstanceNorm2d(8), nn.ReLU())


@pytest.mark.parametrize("norm", [LayerNorm2d(8), nn.GroupNorm(1, 8), PLANES])
def test_norms_of_feature_maps(norm: nn.Module) -> None:
    graph = graph_of(Wrapped(norm), side=8)  # as wide as high as deep: the axis can't be guessed
    assert groups_of(graph) == {("first",): 8}
    assert graph.fixed.keys() == {"output"}
    assert_exact(Wrapped(norm))


def test_whole_groups_go_together() -> None:
    """Each group of a group norm has statistics of its own, so the others don't notice."""
    graph = graph_of(Wrapped(nn.GroupNorm(4, 8)))
    assert groups_of(graph) == {("first",): 4}
    keep = graph.all_kept()
    keep[[0, 2]] = False
    slimmed = slim(Wrapped(nn.GroupNorm(4, 8)), graph, keep)
    assert (slimmed.body.num_groups, slimmed.body.num_channels) == (2, 4)
    assert_exact(Wrapped(nn.GroupNorm(4, 8)))


def test_layer_norm_over_positions_leaves_channels_apart() -> None:
    graph = graph_of(Wrapped(nn.LayerNorm(8)), side=8)  # the last axis is the width of the picture
    assert groups_of(graph) == {("first",): 8}
    assert not graph.joint_norms
    assert_exact(Wrapped(nn.LayerNorm(8)))


@pytest.mark.parametrize(
    "body",
    [
        nn.LayerNorm((8, 8, 8)),
        nn.LocalResponseNorm(3),
        Call(lambda x: (x - x.mean(1, keepdim=True)) / x.std(1, keepdim=True)),
    ],
)
def test_other_statistics_over_channels_are_fixed(body: nn.Module) -> None:
    graph = graph_of(Wrapped(body))
    assert graph.class_count == 0
    assert any(name.startswith("body") for name in graph.fixed)
    assert_exact(Wrapped(body))


def test_masks_of_single_images() -> None:
    """Each image of a batch may have a mask of its own; norms follow it."""
    from compressor.masks import ChannelMasks

    torch.manual_seed(0)
    model = randomize(Wrapped(Tokens())).double().eval()
    x = torch.randn(2, 3, 4, 4).double()
    graph = channel_graph(model, x[:1])
    masks = torch.ones(2, graph.class_count).double()
    masks[0, [0, 3, 11]] = 0
    masks[1, [5, 14]] = 0
    with torch.no_grad(), ChannelMasks(model, graph) as active:
        active.set(masks)
        together = model(x)
        for image in range(2):
            active.set(masks[image])
            torch.testing.assert_close(model(x[image : image + 1]), together[image : image + 1])
