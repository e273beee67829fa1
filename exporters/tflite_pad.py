"""Zero channels added by a convolution, so that TFLite files need no transposes for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor
    from torch.overrides import TorchFunctionMode


def channel_pads_as_convolutions() -> TorchFunctionMode:
    """A context in which `F.pad` of zero channels is a 1x1 convolution: the same values.

    The converter puts channels last, but for a pad of channels it goes to channels first and back:
    a CIFAR ResNet-20, whose shortcuts are such pads, gets 14 transposes. The convolution's weights
    are ones and zeros.
    """
    from torch.nn import functional as F
    from torch.overrides import TorchFunctionMode

    class Mode(TorchFunctionMode):
        def __torch_function__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            arguments = kwargs or {}
            if func is F.pad and _adds_zero_channels(*args, **arguments):
                return _widened(*args, **arguments)
            return func(*args, **arguments)

    return Mode()


def _adds_zero_channels(
    input: Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None
) -> bool:
    channels_alone = len(pad) == 6 and not any(pad[:4]) and min(pad[4:]) >= 0
    return input.dim() == 4 and channels_alone and mode == "constant" and not value


def _widened(input: Tensor, pad: Sequence[int], *_: object, **__: object) -> Tensor:
    """[N, C, H, W] -> [N, front + C + back, H, W]."""
    import numpy as np
    import torch
    from torch.nn import functional as F

    channels, (front, back) = input.shape[1], pad[4:]
    ones = np.pad(np.eye(channels, dtype=np.float32), ((front, back), (0, 0)))
    # By way of numpy: what torch computes while it is traced becomes operators of the file.
    weight = torch.from_numpy(ones).reshape(-1, channels, 1, 1)
    return F.conv2d(input, weight)
