"""How much better one network's scores are than another's on the same images."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class PairedDifference:
    """The mean difference of two networks' scores and how well it is known.

    The same images judge both, so that it is known better than either score.

    Attributes:
        mean: of the first network's scores less the second's.
        standard_error: of that mean; 0 for a single image.

    Without images both are 0: nothing tells the networks apart.
    """

    mean: float
    standard_error: float

    @classmethod
    def of(cls, one: Tensor, other: Tensor) -> PairedDifference:
        """Compare scores of the same images in the same order, shape (N,)."""
        differences = one.double() - other.double()
        count = max(len(differences), 1)
        spread = float(differences.std()) if count > 1 else 0.0
        return cls(float(differences.sum()) / count, spread / math.sqrt(count))
