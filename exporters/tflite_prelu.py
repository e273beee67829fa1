"""PReLU behind a linear layer, so that the TFLite converter leaves the layer's weights alone."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


def with_prelus_on_planes(model: nn.Module) -> nn.Module:
    """A copy, its weights shared, whose PReLUs take a vector as a plane of one pixel.

    The converter writes PReLU as relu(x) - slope * relu(-x). Behind a linear layer it folds the
    minus sign into the layer, which gets a second set of weights for that. A reshape between the
    two keeps it from doing so, and costs nothing. Convolutions are not folded.
    """
    from torch import Tensor, nn

    class OnPlanes(nn.Module):
        """PReLU of [N, C] computed on [N, C, 1, 1]."""

        def __init__(self, prelu: nn.PReLU) -> None:
            super().__init__()
            self.prelu = prelu

        def forward(self, x: Tensor) -> Tensor:
            if x.dim() != 2:
                return self.prelu(x)
            return self.prelu(x[:, :, None, None]).flatten(1)

    names = [
        name
        for name, module in model.named_modules(remove_duplicate=False)
        if isinstance(module, nn.PReLU) and name
    ]
    if not names:
        return model
    weights = {id(value): value for value in (*model.parameters(), *model.buffers())}
    clone = copy.deepcopy(model, weights)
    for name in names:
        prelu = clone.get_submodule(name)
        assert isinstance(prelu, nn.PReLU)
        clone.set_submodule(name, OnPlanes(prelu))
    return clone.eval()
