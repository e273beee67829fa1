"""Masked execution: the network as it would be without some channels, before they are cut out."""

from __future__ import annotations

from types import TracebackType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from compressor.blend import blend, channel_means
from compressor.graph import ChannelGraph
from compressor.graph.channel_graph import FIXED_CLASS, Classes
from compressor.joint_norm import masked_norm
from compressor.ranks import Share


class ChannelMasks:
    """Multiply the input of every layer that mixes channels by a mask, while active.

    The mask acts where channels are consumed, never between a convolution and its batch norm, which
    would add its bias back. So the masked network and the slimmed one are the same function in eval
    mode.

    Use as a context manager around forward passes; call `set` before each of them.

    Args:
        model: the network.
        graph: its channel graph.
        with_means: a dropped channel gives its mean (`blend.channel_means`) instead of zero.
            Slimming gives zero; but a channel's mean is a constant that the batch norms behind it
            take up as soon as their statistics are measured anew, so this is nearer to the
            recalibrated network.

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
                self._columns(consumer.classes, device),
            )
            for consumer in graph.consumers
            if (consumer.classes != FIXED_CLASS).any()
        ]
        self._norms = [
            (model.get_submodule(norm.module), norm.axis, self._columns(norm.classes, device))
            for norm in graph.joint_norms
            if (norm.classes != FIXED_CLASS).any()
        ]
        self._mask: Tensor | None = None
        self._taught_images: int | None = None
        self._share: Share | None = None
        self._handles: list[Any] = []

    def set(
        self,
        mask: Tensor | None,
        taught_images: int | None = None,
        share: Share | None = None,
    ) -> None:
        """Set the mask of the next forward passes.

        Args:
            mask: 1 keeps, 0 drops, shape (class_count,) for all images or (batch, class_count) for
                each; may carry gradients. None keeps everything.
            taught_images: only the first masks get gradients, which is cheaper; `blend.blend`.
            share: of a batch whose other images go through the network in other processes.

        Raises:
            ValueError: the number of classes doesn't match.
        """
        self._taught_images, self._share = taught_images, share
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
        for module, axis, classes in self._norms:
            norm_hook = self._norm_hook(axis, classes)
            self._handles.append(module.register_forward_hook(norm_hook))
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
            mask = _along(self._mask, classes, x, axis)
            mean = channel_means(x, axis, self._share) if self._with_means else None
            return (blend(x, mask, mean, self._taught_images), *inputs[1:])

        return multiply

    def _norm_hook(self, axis: int, classes: Tensor) -> Any:
        def normalize(module: nn.Module, inputs: tuple[Tensor, ...], _: Tensor) -> Tensor | None:
            if self._mask is None:
                return None
            x = inputs[0]
            mask = _along(self._mask, classes, x, axis).to(x.dtype)
            return masked_norm(module, x, mask, axis)

        return normalize

    def _columns(self, classes: Classes, device: torch.device) -> Tensor:
        # FIXED_CLASS is -1: fixed channels read the last column, which `set` appends.
        return torch.from_numpy(np.where(classes < 0, self.class_count, classes)).to(device)


def _along(mask: Tensor, classes: Tensor, x: Tensor, axis: int) -> Tensor:
    """Return a mask's entries for some channels, shaped to multiply x, which has them at `axis`."""
    chosen = mask.index_select(1, classes)  # (batch or 1, channels)
    shape = [1] * x.dim()
    shape[0], shape[axis] = len(chosen), -1
    return chosen.reshape(shape)
