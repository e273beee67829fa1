"""What one batch under sampled actions gave: all that agents learn from."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Outcome:
    """One batch under sampled actions.

    Attributes:
        actions: 1 kept, 0 dropped, shape (N, agents).
        losses: loss of every image, shape (N,).
        reference_losses: loss of the unpruned network on the same images, shape (N,); zeros without
            one.
        scores: the metric of every image in [0, 1], shape (N,): 1 for a right prediction and 0 for
            a wrong one in classification.
        mask_gradients: d loss / d action of the first images, shape (M <= N, agents).
    """

    actions: Tensor
    losses: Tensor
    reference_losses: Tensor
    scores: Tensor
    mask_gradients: Tensor
