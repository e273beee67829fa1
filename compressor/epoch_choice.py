"""Which epoch's weights a training leaves: the latest that isn't clearly worse than the best.

The epoch with the highest score on few validation images is a lucky one, often from before the
learning rate came down: of 55 epochs one is right on all of 144 images by chance.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from compressor.paired import PairedDifference

_STANDARD_ERRORS = 2.0
"""Of the mean difference to the best epoch, image by image: how much worse still passes."""


class EpochChoice:
    """The weights to leave after the epochs so far.

    Attributes:
        score: mean validation score of those weights, a fraction.
        weights: a copy of the network's state; empty before the first offer.
    """

    score: float = 0.0
    weights: Mapping[str, Any] = MappingProxyType({})

    def __init__(self) -> None:
        self._highest = torch.empty(0, dtype=torch.float64)

    def offer(self, model: nn.Module, scores: Tensor) -> None:
        """Take the weights of one more epoch, unless an earlier one was clearly better.

        Args:
            scores: of the validation images in their order, shape (N,).
        """
        scores = scores.double()
        if not self.weights or scores.mean() >= self._highest.mean():
            self._highest = scores
        if not clearly_above(self._highest, scores):
            self.score = mean_score(scores)
            self.weights = {name: value.clone() for name, value in model.state_dict().items()}

    def state_dict(self) -> dict[str, Any]:
        """Return everything that a resumed training needs."""
        return {"highest": self._highest, "score": self.score, "weights": dict(self.weights)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to a saved state."""
        self._highest, self.score = state["highest"], state["score"]
        self.weights = state["weights"]


def mean_score(scores: Tensor) -> float:
    """Return the mean over images, shape (N,); 0 without any."""
    return float(scores.double().sum()) / max(len(scores), 1)


def clearly_above(one: Tensor, other: Tensor) -> bool:
    """Whether the mean of paired scores is higher by more than two standard errors.

    Args:
        one, other: of the same images, shape (N,).
    """
    difference = PairedDifference.of(one, other)
    return difference.mean > _STANDARD_ERRORS * difference.standard_error
