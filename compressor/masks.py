"""Masked execution: the network as it would be without some channels, before they are cut out."""

from __future__ import annotations

from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from compressor.blend import blend, channel_means
from compressor.calls import first_tensor, with_first_tensor
from compressor.graph import ChannelGraph
from compressor.graph.channel_graph import FIXED_CLASS, Classes
from compressor.graph.image_rows import ImageRows
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
            _Site(model.get_submodule(c.module), c.axis, self._columns(c.classes, device), c.rows)
            for c in graph.consumers
            if (c.classes != FIXED_CLASS).any()
        ]
        self._norms = [
            _Site(model.get_submodule(n.module), n.axis, self._columns(n.classes, device), n.rows)
            for n in graph.joint_norms
            if (n.classes != FIXED_CLASS).any()
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
        for site in self._sites:
            handle = site.module.register_forward_pre_hook(self._hook(site), with_kwargs=True)
            self._handles.append(handle)
        for site in self._norms:
            handle = site.module.register_forward_hook(self._norm_hook(site), with_kwargs=True)
            self._handles.append(handle)
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

    def _hook(self, site: _Site) -> Any:
        def multiply(module: nn.Module, args: Any, kwargs: Any) -> Any:
            x = first_tensor(args, kwargs)
            if self._mask is None or x is None:
                return None
            apart, mask, axis = site.images_first(x, self._mask)
            mean = channel_means(apart, axis, self._share) if self._with_means else None
            mixed = blend(apart, mask, mean, self._taught_images)
            return with_first_tensor(args, kwargs, site.rows.back(mixed, x))

        return multiply

    def _norm_hook(self, site: _Site) -> Any:
        def normalize(module: nn.Module, args: Any, kwargs: Any, _: Tensor) -> Tensor | None:
            x = first_tensor(args, kwargs)
            if self._mask is None or x is None:
                return None
            apart, mask = site.images_first(x, self._mask)[:2]
            if apart.dim() > x.dim():  # the mask needs a value for every row of an image
                mask = mask.expand(*apart.shape[:3], *mask.shape[3:])
            return masked_norm(module, x, site.rows.back(mask, x).to(x.dtype), site.axis)

        return normalize

    def _columns(self, classes: Classes, device: torch.device) -> Tensor:
        # FIXED_CLASS is -1: fixed channels read the last column, which `set` appends.
        return torch.from_numpy(np.where(classes < 0, self.class_count, classes)).to(device)


@dataclass(frozen=True)
class _Site:
    """Where a mask acts.

    Attributes:
        module: the layer or norm.
        axis: of its input that holds the channels.
        columns: of a mask, one for each channel.
        rows: where the images of a batch lie in its input.
    """

    module: nn.Module
    axis: int
    columns: Tensor
    rows: ImageRows

    def images_first(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, int]:
        """Return x and the entries of a mask, shaped to multiply it, and its axis of channels.

        Both have the images in front, unless all images share the mask.
        """
        chosen = mask.index_select(1, self.columns)  # (batch or 1, channels)
        axis = self.axis
        if len(mask) > 1:
            axis = self.rows.axis_behind(axis, x, len(mask))
            x = self.rows.images_first(x, len(mask))
        shape = [1] * x.dim()
        shape[0], shape[axis] = len(chosen), -1
        return x, chosen.reshape(shape), axis
