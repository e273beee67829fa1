"""Operations that come out badly in TFLite files, said in other words with the same values."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor
    from torch.overrides import TorchFunctionMode


def rewritten_for_tflite() -> TorchFunctionMode:
    """A context in which torch computes some operations as others.

    - `F.pad` of zero channels is a 1x1 convolution of ones and zeros. The converter puts channels
      last, but for such a pad it goes to channels first and back: a CIFAR ResNet-20, whose
      shortcuts are such pads, gets 14 transposes.
    - Every second pixel of an image (`x[:, :, ::2, ::2]`, in those same shortcuts) is a maximum
      over one pixel with stride 2. Slices of two axes take longer than the convolution before them.
    - Adaptive average pooling to a size that doesn't divide the input's is a mean for each row of
      pixels and then for each column. Otherwise there are tensors of rank 6, which can't be
      quantized.
    - An average pool that doesn't count its pads is one that does, times the places of each window
      over those in the image. TFLite has the former for "same" padding alone; the converter's own
      form of the others can't be quantized.
    - A max pool whose windows have gaps is a maximum of shifted images: the converter's own form of
      it has a border of minus infinity without a name, which can't be quantized.
    - A transposed convolution with padding is one without, cut afterwards. The converter has the
      former for "same" padding alone.
    - An image expanded to another's size is a sum with zeros, which costs nothing in the file: the
      converter turns axes of one of the two factors behind it and not of the other.
    - Attention whose heads share keys and values (MobileNetV4) is written out: the converter's own
      form of it computes something else.
    """
    import torch
    from torch.nn import functional as F
    from torch.overrides import TorchFunctionMode

    rewrites: Mapping[Any, tuple[Callable[..., bool], Callable[..., Tensor]]] = {
        F.pad: (_adds_zero_channels, _widened),
        torch.Tensor.__getitem__: (_skips_pixels, _thinned),
        F.adaptive_avg_pool2d: (_has_uneven_bins, _pooled),
        F.avg_pool2d: (_leaves_pads_out, _averaged),
        F.max_pool2d: (_has_gaps, _largest),
        F.conv_transpose2d: (_cuts_edges, _cut),
        torch.Tensor.expand_as: (_are_images, _expanded),
        F.scaled_dot_product_attention: (_shares_keys, _attended),
    }

    class Mode(TorchFunctionMode):
        def __torch_function__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            arguments = kwargs or {}
            applies, rewrite = rewrites.get(func, (None, None))
            if applies is not None and rewrite is not None and applies(*args, **arguments):
                return rewrite(*args, **arguments)
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


def _skips_pixels(input: Tensor, index: Any) -> bool:
    """Whether the index of [N, C, H, W] asks for strides over all pixels and for nothing else."""
    if input.dim() != 4 or not input.is_floating_point() or not isinstance(index, tuple):
        return False
    first, last = index[:-2], index[-2:]
    if first not in ((Ellipsis,), (slice(None),) * 2):
        return False
    strided = all(isinstance(p, slice) and not p.start and p.stop is None for p in last)
    return strided and any(part.step not in (None, 1) for part in last)


def _thinned(input: Tensor, index: Any) -> Tensor:
    """[N, C, H, W] -> [N, C, ceil(H / stride), ceil(W / stride)]."""
    from torch.nn import functional as F

    return F.max_pool2d(input, 1, stride=[part.step or 1 for part in index[-2:]])


def _leaves_pads_out(
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> bool:
    kernel, steps, pads = _pair(kernel_size), _pair(stride or kernel_size), _pair(padding)
    same = steps == (1, 1) and all(k == 2 * p + 1 for k, p in zip(kernel, pads, strict=True))
    return input.dim() == 4 and any(pads) and not (count_include_pad or divisor_override or same)


def _averaged(
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    *_: object,
    **__: object,
) -> Tensor:
    """[N, C, H, W] -> [N, C, H', W']."""
    import numpy as np
    import torch
    from torch.nn import functional as F

    pooled = F.avg_pool2d(input, kernel_size, stride, padding, ceil_mode)
    kernel, steps, pads = _pair(kernel_size), _pair(stride or kernel_size), _pair(padding)
    factors = []
    for axis in (0, 1):
        size, k, p = input.shape[2 + axis], kernel[axis], pads[axis]
        starts = np.arange(pooled.shape[2 + axis]) * steps[axis] - p
        counted = np.minimum(starts + k, size + p) - starts
        inside = np.minimum(starts + k, size) - np.maximum(starts, 0)
        factors.append(counted / inside)
    return pooled * torch.from_numpy(np.outer(*factors).astype(np.float32))


def _has_gaps(
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> bool:
    plain = input.dim() == 4 and not (ceil_mode or return_indices)
    return plain and _pair(dilation) != (1, 1)


def _largest(
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    *_: object,
    **__: object,
) -> Tensor:
    """[N, C, H, W] -> [N, C, H', W'], one axis after the other: windows are rectangles."""
    import torch
    from torch.nn import functional as F

    kernel, gaps, (rows, columns) = _pair(kernel_size), _pair(dilation), _pair(padding)
    x = F.pad(input, (columns, columns, rows, rows), value=-math.inf) if rows or columns else input
    for axis in (0, 1):
        places = x.shape[2 + axis] - gaps[axis] * (kernel[axis] - 1)
        shifts = (gaps[axis] * i for i in range(kernel[axis]))
        x = reduce(torch.maximum, (x.narrow(2 + axis, shift, places) for shift in shifts))
    return F.max_pool2d(x, 1, _pair(stride or kernel_size))


def _cuts_edges(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    *_: object,
    **__: object,
) -> bool:
    steps, pads, more = _pair(stride), _pair(padding), _pair(output_padding)
    axes = list(zip(weight.shape[2:], steps, pads, more, strict=True))
    same = all(k - step == 2 * pad and not extra for k, step, pad, extra in axes)
    cuts = any(pads) and not same
    return input.dim() == 4 and cuts and all(pad >= extra for *_, pad, extra in axes)


def _cut(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Tensor:
    """[N, C, H, W] -> [N, C', H', W']."""
    from torch.nn import functional as F

    x = F.conv_transpose2d(input, weight, bias, stride, groups=groups, dilation=dilation)
    for axis, (pad, more) in enumerate(zip(_pair(padding), _pair(output_padding), strict=True), 2):
        x = x.narrow(axis, pad, x.shape[axis] - 2 * pad + more)
    return x


def _pair(value: Any) -> tuple[int, int]:
    pair = (value,) * 2 if isinstance(value, int) else tuple(value)
    return (pair[0], pair[-1])


def _are_images(input: Tensor, other: Tensor) -> bool:
    return input.dim() == other.dim() == 4 and input.is_floating_point()


def _expanded(input: Tensor, other: Tensor) -> Tensor:
    """Broadcast to the shape of `other`, [N, C, H, W]."""
    return input + input.new_zeros(other.shape)


def _shares_keys(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    **_: object,
) -> bool:
    plain = attn_mask is None and not dropout_p and not is_causal
    return plain and query.shape[:-2] != key.shape[:-2]


def _attended(
    query: Tensor, key: Tensor, value: Tensor, *_: object, scale: float | None = None, **__: object
) -> Tensor:
    """softmax(query @ key.T * scale) @ value.

    Shapes [..., L, E], [..., S, E] and [..., S, V] become [..., L, V].
    """
    factor = query.shape[-1] ** -0.5 if scale is None else scale
    return ((query * factor) @ key.transpose(-2, -1)).softmax(-1) @ value


def _has_uneven_bins(input: Tensor, output_size: Any) -> bool:
    sizes = _output_sizes(input, output_size)
    return any(have % want for have, want in zip(input.shape[-2:], sizes, strict=True))


def _pooled(input: Tensor, output_size: Any) -> Tensor:
    """[..., H, W] -> [..., *output_size], one axis after the other: bins are rectangles."""
    height, width = _output_sizes(input, output_size)
    return _means(_means(input, -2, height), -1, width)


def _means(x: Tensor, axis: int, bins: int) -> Tensor:
    """Mean of each bin along an axis, by the rule of `torch.nn.AdaptiveAvgPool2d`."""
    import torch

    length = x.shape[axis]
    if bins == length:
        return x
    edges = [(i * length // bins, math.ceil((i + 1) * length / bins)) for i in range(bins)]
    pieces = {
        (low, high): x.narrow(axis, low, high - low).mean(axis, keepdim=True)
        for low, high in dict.fromkeys(edges)
    }
    return torch.cat([pieces[edge] for edge in edges], axis)


def _output_sizes(input: Tensor, output_size: Any) -> tuple[int, int]:
    """Height and width that are asked for; None stands for the input's."""
    height, width = (output_size,) * 2 if isinstance(output_size, int | None) else output_size
    return height or input.shape[-2], width or input.shape[-1]
