"""Convolutions and linear layers by name, with the tensors that make their answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from compressor.quantization.calls import Call
from compressor.quantization.points import LAYERS, FoldedNorm


@dataclass(frozen=True)
class Layer:
    """A layer that is called once, with the batch norm that is folded into it.

    Attributes:
        name: of the module that owns the weight.
        call: number of its operation.
        end: number of the operation that makes its answer: the norm's, or the same.
        module: owns weight and bias.
        norm: folded by `neutral.fold_norms`, holds the bias then.
    """

    name: str
    call: int
    end: int
    module: nn.Module
    norm: nn.BatchNorm2d | None

    @property
    def weight(self) -> nn.Parameter:
        return self.module.get_parameter("weight")

    @property
    def channel_axis(self) -> int:
        """Of its answer: the last one behind a linear layer, else 1."""
        return -1 if isinstance(self.module, nn.Linear) else 1

    @property
    def has_bias(self) -> bool:
        return self.norm is not None or self.module._parameters.get("bias") is not None

    @torch.no_grad()
    def add_to_bias(self, change: Tensor) -> None:
        """Add to the bias, in place; it must have one.

        Args:
            change: shape (output channels,).
        """
        if self.norm is not None and not self.norm.affine:
            mean = self.norm.get_buffer("running_mean")
            mean.sub_(change.to(mean))
            return
        bias = (self.norm or self.module).get_parameter("bias")
        bias.add_(change.to(bias))

    @torch.no_grad()
    def scale_outputs(self, factors: Tensor) -> None:
        """Multiply every output channel, in place.

        Args:
            factors: shape (output channels,).
        """
        weight = self.weight
        weight.mul_(factors.to(weight).reshape(-1, *(1,) * (weight.dim() - 1)))
        shifts: list[Tensor | None] = [self.module._parameters.get("bias")]
        if self.norm is not None:
            shifts += [self.norm._parameters.get("bias"), self.norm.running_mean]
        for shift in shifts:
            if shift is not None:
                shift.mul_(factors.to(shift))


def named_layers(
    model: nn.Module, calls: Sequence[Call], norms: Iterable[FoldedNorm]
) -> list[Layer]:
    """Return the layers that are called once with a weight that a module owns, in order.

    Args:
        norms: batch norms that are folded, as `points.folded_norms` returns them.
    """
    owners = {
        id(weight): (name, module)
        for name, module in model.named_modules()
        if (weight := module._parameters.get("weight")) is not None
    }
    uses = Counter(id(tensor) for call in calls for tensor in call.constants)
    behind = {pair.layer_call: pair for pair in norms}
    found = []
    for number, call in enumerate(calls):
        if call.name not in LAYERS or not call.sources or not call.constants:
            continue
        weight = id(call.constants[0])
        if weight not in owners or uses[weight] != 1:
            continue
        (name, module), pair = owners[weight], behind.get(number)
        norm = None if pair is None else model.get_submodule(pair.norm)
        assert norm is None or isinstance(norm, nn.BatchNorm2d)
        end = number if pair is None else pair.norm_call
        found.append(Layer(name, number, end, module, norm))
    return found
