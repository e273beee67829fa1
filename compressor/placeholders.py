"""What stands where an empty branch was."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True)
class Window:
    """How a convolution changes the size of its planes, one entry per axis of the plane."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]

    @classmethod
    def of(cls, module: nn.Module) -> Window | None:
        """Return a convolution's window, None for a linear layer."""
        if not isinstance(module, nn.modules.conv._ConvNd):
            return None
        padding, one = module.padding, (1,) * len(module.kernel_size)
        if padding == "same":  # the plane keeps its size, which an even kernel pads unevenly
            return cls(one, one, (0,) * len(one), one)
        if padding == "valid":
            padding = (0,) * len(module.kernel_size)
        return cls(module.kernel_size, module.stride, padding, module.dilation)  # type: ignore[arg-type]

    def output_size(self, size: tuple[int, ...]) -> tuple[int, ...]:
        """Return the output plane for an input plane, as torch.nn.Conv2d documents it."""
        axes = zip(size, self.kernel, self.stride, self.padding, self.dilation, strict=True)
        return tuple((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in axes)


class Nothing(nn.Module):
    """The producer of an empty branch: one channel of zeros, of which only the size is read."""

    def __init__(self, window: Window | None) -> None:
        super().__init__()
        self.window = window

    def forward(self, x: Tensor) -> Tensor:
        if self.window is None:
            return x.new_zeros((*x.shape[:-1], 1))  # (..., C) -> (..., 1)
        plane = self.window.output_size(tuple(x.shape[2:]))
        return x.new_zeros((x.shape[0], 1, *plane))  # (N, C, H, W) -> (N, 1, H', W')


class Constant(nn.Module):
    """The constant that an empty branch adds: batch norm of zero, one value per channel.

    The value is a parameter, so fine-tuning may move it.

    Attributes:
        value: shape (1, channels, 1, 1), or (1, channels) after a linear layer.
        full_size: return a fresh tensor of the branch's size, for code that adds to it in place;
            else the value itself, which broadcasts.
    """

    def __init__(self, value: Tensor, window: Window | None, full_size: bool) -> None:
        super().__init__()
        self.value = nn.Parameter(value.detach().clone())
        self.window = window
        self.full_size = full_size

    def forward(self, x: Tensor) -> Tensor:
        if not self.full_size:
            return self.value
        if self.window is None:
            return self.value.expand(*x.shape[:-1], -1).clone()
        plane = self.window.output_size(tuple(x.shape[2:]))
        return self.value.expand(x.shape[0], -1, *plane).clone()

    def extra_repr(self) -> str:
        return f"channels={self.value.shape[1]}, full_size={self.full_size}"
