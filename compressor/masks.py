"""Masked execution: the network as it would be without some channels, before they are cut out."""

from __future__ import annotations

from types import TracebackType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from compressor.graph import ChannelGraph
from compressor.graph.channel_graph import FIXED_CLASS


class ChannelMasks:
    """Multiply the input of every layer that mixes channels by a mask, while active.

    The mask acts where channels are consumed, never between a convolution and its batch norm, which
    would add its bias back. So the masked network and the slimmed one are the same function in eval
    mode.

    Use as a context manager around forward passes; call `set` before each of them.

    Args:
        model: the network.
        graph: its channel graph.
        with_means: a dropped channel gives its mean over the batch instead of zero. Slimming gives
            zero; but a channel's mean is a constant that the batch norms behind it take up as soon
            as their statistics are measured anew, so this is nearer to the recalibrated network.

    Attributes:
        class_count: entries of one mask.
    """

    def __init__(self, model: nn.Module, graph: ChannelGraph, *, with_means: bool = False) -> None:
        self.class_count = graph.class_count
        self._with_means = with_means
        device = next(model.parameters()).device
        self._sites = [
            (
                model.get_submodule(consumer.module),
                consumer.axis,
                # FIXED_CLASS is -1: fixed channels read the last column, which `set` appends.
                torch.from_numpy(
                    np.where(consumer.classes < 0, graph.class_count, consumer.classes)
                ).to(device),
            )
            for consumer in graph.consumers
            if (consumer.classes != FIXED_CLASS).any()
        ]
        self._mask: Tensor | None = None
        self._handles: list[Any] = []

    def set(self, mask: Tensor | None) -> None:
        """Set the mask of the next forward passes.

        Args:
            mask: 1 keeps, 0 drops, shape (class_count,) for all images or (batch, class_count) for
                each; may carry gradients. None keeps everything.

        Raises:
            ValueError: the number of classes doesn't match.
        """
        if mask is None:
            self._mask = None
            return
        if mask.shape[-1] != self.class_count:
            raise ValueError(f"mask has {mask.shape[-1]} entries, the graph {self.class_count}")
        mask = mask if mask.dim() == 2 else mask[None]
        self._mask = torch.cat((mask, mask.new_ones(len(mask), 1)), dim=1)

    def __enter__(self) -> ChannelMasks:
        for module, axis, classes in self._sites:
            hook = self._hook(axis, classes)
            self._handles.append(module.register_forward_pre_hook(hook))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._mask = None

    def _hook(self, axis: int, classes: Tensor) -> Any:
        def multiply(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
            if self._mask is None:
                return None
            x = inputs[0]
            mask = self._mask.to(x.dtype).index_select(1, classes)  # (batch or 1, channels)
            # Linear layers hold channels last, convolutions after the batch.
            between = (1,) * (x.dim() - 2)
            shape = (len(mask), *between, -1) if axis == -1 else (len(mask), -1, *between)
            mask = mask.reshape(shape)
            if not self._with_means:
                return (x * mask, *inputs[1:])
            others = [i for i in range(x.dim()) if i != axis % x.dim()]
            mean = x.detach().mean(dim=others, keepdim=True)
            return (torch.lerp(mean, x, mask), *inputs[1:])

        return multiply
