"""Where and in which precision networks are trained."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Compute:
    """Device and arithmetic of training.

    Attributes:
        device: where tensors live.
        mixed_precision: bfloat16 for convolutions and matrix products while training; evaluation
            always uses float32.
    """

    device: torch.device
    mixed_precision: bool

    @classmethod
    def choose(cls, device: str = "cpu") -> Compute:
        """Choose mixed precision where the hardware multiplies bfloat16 itself.

        Args:
            device: a torch device name, or "auto" for an accelerator if there is one.

        Raises:
            ValueError: the device isn't there.
        """
        if device == "auto":
            found = torch.accelerator.current_accelerator(check_available=True)
            device = "cpu" if found is None else found.type
        chosen = torch.device(device)
        if chosen.type == "cuda" and not torch.cuda.is_available():
            raise ValueError(
                f"--device {device}: this PyTorch sees no CUDA device; use cpu or auto"
            )
        if chosen.type == "cuda" and (chosen.index or 0) >= (count := torch.cuda.device_count()):
            raise ValueError(
                f"--device {device}: this machine has {count} CUDA devices, counted from 0"
            )
        if chosen.type == "mps" and not torch.backends.mps.is_available():
            raise ValueError(
                f"--device {device}: this PyTorch sees no Metal device; use cpu or auto"
            )
        if chosen.type == "cpu":
            return cls(chosen, bool(torch.cpu.get_capabilities().get("avx512_bf16", False)))
        return cls(chosen, chosen.type == "cuda" and torch.cuda.is_bf16_supported())

    def place(self, model: nn.Module) -> nn.Module:
        """Move a network to the device, in the layout that its convolutions prefer."""
        return model.to(self.device).to(memory_format=torch.channels_last)

    def images(self, x: Tensor) -> Tensor:
        """Move a batch (N, C, H, W) to the device."""
        return x.to(self.device).contiguous(memory_format=torch.channels_last)

    @contextlib.contextmanager
    def arithmetic(self) -> Iterator[None]:
        """Run forward passes of training in the chosen precision."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.mixed_precision):
            yield
