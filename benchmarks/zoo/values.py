"""Values for untrained networks under which mistakes show and outputs depend on the image."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

SMALLEST_DEVIATION = 1e-3
"""Channels that hardly change aren't scaled up: that would be noise."""

RIDGE = 1.0
"""Of the mean squared length of the centred features."""

BATCH = 16


def randomize(model: nn.Module, seed: int) -> None:
    """Replace constant parameters: scales, biases, layer scales and tokens start as 0, 1 or 1e-6.

    With those, a channel that is dropped wrongly may change nothing.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.numel() == 0 or not bool((parameter == parameter.flatten()[0]).all()):
                continue
            if name.rpartition(".")[2] == "bias":
                parameter.normal_(0.0, 0.3, generator=generator)
            else:
                parameter.uniform_(0.5, 1.5, generator=generator)


def settle(model: nn.Module, images: Tensor) -> None:
    """Give every layer's outputs mean 0 and variance 1 over these images, in one forward pass.

    Batch norms get the statistics of their inputs. The features of an untrained network would be
    nearly the same for every image. Source: data-dependent initialization, Salimans & Kingma 2016,
    equation 5 (https://arxiv.org/abs/1602.07868), with scale 1 and shift 0.

    Args:
        model: in eval mode. A layer without bias keeps its mean.
        images: shape (N, 3, S, S).
    """
    handles = []
    for module in model.modules():
        if isinstance(module, _BatchNorm) and module.running_mean is not None:
            handles.append(module.register_forward_pre_hook(_measure))
        elif isinstance(module, (_ConvNd, nn.Linear)):
            handles.append(module.register_forward_hook(_standardize))
    try:
        with torch.no_grad():
            model(images)
    finally:
        for handle in handles:
            handle.remove()


def fit_head(model: nn.Module, images: Tensor, labels: Tensor) -> bool:
    """Fit the last linear layer to labels by ridge regression on its inputs.

    Args:
        model: in eval mode.
        images: shape (N, 3, S, S).
        labels: shape (N,), each below the number of outputs.

    Returns:
        False, and nothing is changed, where no linear layer reads one vector per image and makes
        the outputs (SqueezeNet's head is a convolution).
    """
    seen: dict[nn.Linear, list[Tensor]] = {}
    handles = [
        module.register_forward_pre_hook(
            lambda layer, inputs: seen.setdefault(layer, []).append(inputs[0])
        )
        for module in model.modules()
        if isinstance(module, nn.Linear)
    ]
    with torch.no_grad():
        outputs = torch.cat([model(batch) for batch in images.split(BATCH)])
    for handle in handles:
        handle.remove()
    last = list(seen)[-1] if seen else None
    if last is None or seen[last][0].dim() != 2 or last.out_features != outputs.shape[1]:
        return False
    weight, bias = _ridge(torch.cat(seen[last]), F.one_hot(labels, outputs.shape[1]))
    with torch.no_grad():
        last.weight.copy_(weight)
        if last.bias is not None:
            last.bias.copy_(bias)
    return True


def _ridge(features: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Weight [outputs, width] and bias of the ridge regression [N, width] -> [N, outputs]."""
    x, y = features.double(), targets.double()
    centred = x - x.mean(0)
    products = centred @ centred.T
    strength = RIDGE * products.diagonal().mean() * torch.eye(len(x), dtype=x.dtype)
    weight = torch.linalg.solve(products + strength, y - y.mean(0)).T @ centred
    return weight.float(), (y.mean(0) - weight @ x.mean(0)).float()


def _measure(norm: nn.Module, inputs: tuple[Any, ...]) -> None:
    assert isinstance(norm, _BatchNorm)
    mean, deviation = _moments(inputs[0], axis=1)
    norm.running_mean = mean
    norm.running_var = deviation.square().clamp_min(norm.eps)


def _standardize(layer: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
    """Scale and shift a layer, and what it just made, to mean 0 and variance 1 per channel."""
    assert isinstance(layer, (_ConvNd, nn.Linear))
    axis = output.dim() - 1 if isinstance(layer, nn.Linear) else 1
    mean, deviation = _moments(output, axis)
    scale = torch.where(deviation > SMALLEST_DEVIATION, 1 / deviation, 1.0)
    channels = [1] * output.dim()
    channels[axis] = len(scale)
    weight_axis = 1 if getattr(layer, "transposed", False) else 0
    if layer.weight.shape[weight_axis] != len(scale):  # a grouped transposed convolution
        return output
    shape = [1] * layer.weight.dim()
    shape[weight_axis] = len(scale)
    layer.weight.mul_(scale.reshape(shape))
    if layer.bias is None:
        return output * scale.reshape(channels)
    layer.bias.sub_(mean).mul_(scale)
    return (output - mean.reshape(channels)) * scale.reshape(channels)


def _moments(values: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of every channel, shape (channels,) each."""
    flat = values.movedim(axis, 0).flatten(1)
    return flat.mean(1), flat.std(1, correction=0)
