"""Give a network shared weights that train as centroids, and turn them into ordinary ones again.

shared = share_weights(model, 16)
fit(shared, ...)                      # trains centroids, norms and biases
dense = bake(shared)                  # ordinary weights, at most 16 values a layer
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils import parametrize

from compressor.codebook.fitting import Codebook, Fit, kmeans


class SharedWeight(nn.Module):
    """A parametrization: weight = codebook[indices].

    What is trained is theta_k = sqrt(n_k) c_k for a centroid c_k that n_k weights take. The
    gradient of a centroid is the sum over its weights (Han et al. 2016, equation 3), hundreds of
    times a weight's; by the chain rule a step of rate r on theta moves the centroid by r times the
    *mean* of its weights' gradients. That is the step that the weights would take by themselves,
    projected back onto shared weights, so that rates and momentum mean what they mean elsewhere.

    Args:
        indices: (weights,), into the codebook; they stay as they are.
        shape: of the weight.
    """

    def __init__(self, indices: Tensor, shape: torch.Size) -> None:
        super().__init__()
        self.shape = shape
        self.indices: Tensor
        self.root_members: Tensor
        self.register_buffer("indices", indices.int())
        self.register_buffer("root_members", torch.bincount(indices).float().sqrt())

    def forward(self, theta: Tensor) -> Tensor:
        """Return the weight; theta has shape (entries,)."""
        return (theta / self.root_members).index_select(0, self.indices).view(self.shape)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Return the theta, (entries,), of the codebook that is nearest to a weight: its means."""
        sums = torch.zeros(len(self.root_members), dtype=torch.float64, device=weight.device)
        sums.index_add_(0, self.indices, weight.detach().double().flatten())
        return (sums / self.root_members).to(weight.dtype)


def share_weights(model: nn.Module, entries: int, *, fit: Fit = kmeans, seed: int = 0) -> nn.Module:
    """Return a copy whose convolutions and linear layers take `entries` values each.

    Biases, norms and other parameters stay as they are. A layer of fewer distinct weights gets
    a smaller codebook. Layers that share a parameter share its centroids; one that something else
    than such layers has as well stays as it is.

    Args:
        model: on the CPU; stays as it was.
        entries: 2 to 256 for every layer.
        fit: finds the codebook of a layer.
        seed: of whatever the fit draws.

    Raises:
        InputError: entries out of range, or weights that aren't finite.
    """
    shared = copy.deepcopy(model)
    for modules in _layers(shared):
        weight = modules[0].get_parameter("weight")
        codebook = _codebook(weight, entries, fit, seed)
        parametrization = SharedWeight(torch.from_numpy(codebook.indices), weight.shape)
        for module in modules:
            # torch turns the parameter itself into theta, which only one layer may have then
            module.register_parameter("weight", _alone(weight))
            parametrize.register_parametrization(module, "weight", parametrization, unsafe=True)
            _chain(module).original = _chain(modules[0]).original
    return shared


def bake(shared: nn.Module) -> nn.Module:
    """Turn shared weights into ordinary ones of the same values, in place; return the network.

    In place, since torch lets copies of a parametrized module share the class that it removes
    from.
    """
    tied: dict[int, list[nn.Module]] = {}
    for module in shared.modules():
        if _is_shared(module):
            tied.setdefault(id(_chain(module).original), []).append(module)
    for modules in tied.values():
        for module in modules:
            # torch turns theta itself into the weight, and the others still need it
            _chain(module).original = _alone(_chain(module).original)
            parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)
            module.register_parameter("weight", modules[0].get_parameter("weight"))
    return shared


def entries_of(model: nn.Module) -> dict[str, int]:
    """Return layer -> number of distinct weights, of every convolution and linear layer."""
    return {
        name: len(torch.unique(module.weight.detach()))
        for name, module in model.named_modules()
        if isinstance(module, _ConvNd | nn.Linear)
    }


def _codebook(weight: Tensor, entries: int, fit: Fit, seed: int) -> Codebook:
    return fit(weight.detach().numpy().ravel().astype(np.float64), entries, seed)


def _layers(model: nn.Module) -> list[list[nn.Module]]:
    """Layers by their weight, where that is a parameter of layers alone; a weight norm's is
    computed."""
    layers: dict[int, list[nn.Module]] = {}
    others: set[int] = set()
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if name == "weight" and isinstance(module, _ConvNd | nn.Linear):
                layers.setdefault(id(parameter), []).append(module)
            else:
                others.add(id(parameter))
    return [modules for key, modules in layers.items() if key not in others]


def _alone(parameter: nn.Parameter) -> nn.Parameter:
    """A copy that nothing else has."""
    return nn.Parameter(parameter.detach().clone(), parameter.requires_grad)


def _chain(module: nn.Module) -> Any:
    """What torch keeps of a parametrized weight: `original`, theta here, and the function of it."""
    return module.parametrizations["weight"]  # type: ignore[index]


def _is_shared(module: nn.Module) -> bool:
    return parametrize.is_parametrized(module, "weight") and isinstance(
        _chain(module)[0], SharedWeight
    )
