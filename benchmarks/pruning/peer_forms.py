"""Forms of our networks that Torch-Pruning 1.6.1 can analyse.

Its dependency graph maps channel i of an addition to channel i of both summands and knows nothing
of channels that a zero-padded shortcut puts in front. On a `CifarResNet` with everything prunable
`BasePruner.step` ends with "IndexError: index 32 is out of bounds for dimension 0 with size 32".
The authors' own CIFAR ResNets have 1x1 convolutions there. Two forms work:

* ``projection``: every padded shortcut becomes a strided 1x1 convolution that computes the same.
  All channels, those of the residual stream too, can then be pruned. The convolution trains on as
  an ordinary layer and costs MACs (0.6 % of ResNet-20's, unpruned).
* ``inner``: the network as it is; only the channels inside the blocks are prunable.

Networks without padded shortcuts are used as they are.
"""

from __future__ import annotations

import copy
from typing import Literal

import torch
from torch import nn

from compressor.graph import ChannelGraph
from compressor.models.cifar_resnet import BasicBlock
from compressor.models.layers import ChannelPad

Form = Literal["projection", "inner"]


def supported_form(model: nn.Module, form: Form) -> nn.Module:
    """Return a copy of a network in a form whose channels Torch-Pruning can couple."""
    copied = copy.deepcopy(model)
    if form == "projection":
        for block in padded_blocks(copied):
            block.shortcut = projection(block)
    return copied


def ignored_layers(model: nn.Module, graph: ChannelGraph, form: Form) -> list[nn.Module]:
    """Return the layers whose outputs stay: the classifier, and in ``inner`` form the stream.

    Args:
        model: what `supported_form` returned.
        graph: its channel graph; its last layer is the classifier.
        form: the same as there.
    """
    layers = [model.get_submodule(layer.module) for layer in graph.layers]
    if form == "projection" or not padded_blocks(model):
        return layers[-1:]
    inner = {block.conv1 for block in model.modules() if isinstance(block, BasicBlock)}
    return [layer for layer in layers if layer not in inner]


def padded_blocks(model: nn.Module) -> list[BasicBlock]:
    """Return the residual blocks whose shortcut pads channels with zeros."""
    blocks = [module for module in model.modules() if isinstance(module, BasicBlock)]
    return [block for block in blocks if isinstance(block.shortcut, ChannelPad)]


def projection(block: BasicBlock) -> nn.Conv2d:
    """Return the 1x1 convolution of zeros and ones that equals a block's padded shortcut.

    Output channel ``front + i`` is input channel i; the others are zero. Same numbers exactly.
    """
    pad = block.shortcut
    assert isinstance(pad, ChannelPad)
    weight = block.conv1.weight
    inputs = block.conv1.in_channels
    outputs = pad.front + inputs + pad.back
    conv = nn.Conv2d(inputs, outputs, 1, stride=pad.stride, bias=False)
    conv.to(device=weight.device, dtype=weight.dtype).train(block.training)
    with torch.no_grad():
        conv.weight.zero_()
        conv.weight[pad.front : pad.front + inputs, :, 0, 0] = torch.eye(inputs)
    return conv
