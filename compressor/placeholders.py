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
        padding = module.padding
        if padding == "same":
            spans = zip(module.dilation, module.kernel_size, strict=True)
            padding = tuple(dilation * (kernel - 1) // 2 for dilation, kernel in spans)
        elif padding == "valid":
            padding = (0,) * len(module.kernel_size)
        return cls(module.kernel_size, module.stride, padding, module.dilation)  # type: ignore[arg-type]

    def output_size(self, size: tuple[int, ...]) -> tuple[int, ...]:
        """Return the size of the output plane for an input plane, as torch.nn.Conv2d documents it."""
        axes = zip(size, self.kernel, self.stride, self.padding, self.dilation, strict=True)
        return tuple((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in axes)


class Nothing(nn.Module):
    """The producer of an empty branch: hands on one channel of zeros, of which only the size is read."""

    def __init__(self, window: Window | None) -> None:
        super().__init__()
        self.window = window

    def forward(self, x: Tensor) -> Tensor:
        # (N, C, H, W) -> (N, 1, H', W')
        return x.new_zeros((x.shape[0], 1, *_plane(x, self.window)))


class Constant(nn.Module):
    """The constant that an empty branch adds: batch norm of zero, one value per channel.

    The value is a parameter, so fine-tuning may move it.

    Attributes:
        value: shape (1, channels, 1, 1), or (1, channels) after a linear layer.
        full_size: return a fresh tensor of the branch's size, for code that adds to it in place; else the
            value itself, which broadcasts.
    """

    def __init__(self, value: Tensor, window: Window | None, full_size: bool) -> None:
        super().__init__()
        self.value = nn.Parameter(value.detach().clone())
        self.window = window
        self.full_size = full_size

    def forward(self, x: Tensor) -> Tensor:
        if not self.full_size:
            return self.value
        return self.value.expand(x.shape[0], -1, *_plane(x, self.window)).clone()

    def extra_repr(self) -> str:
        return f"channels={self.value.shape[1]}, full_size={self.full_size}"


def _plane(x: Tensor, window: Window | None) -> tuple[int, ...]:
    return window.output_size(tuple(x.shape[2:])) if window is not None else tuple(x.shape[2:])
