"""The agents: one logit per class of channels, Bernoulli keep or drop."""

from __future__ import annotations

import torch
from torch import Tensor

from compressor.cost import Limits


def sample_actions(probabilities: Tensor, batch: int, generator: torch.Generator) -> Tensor:
    """Draw keep (1) or drop (0) for every agent and image, shape (batch, agents)."""
    uniform = torch.rand(batch, len(probabilities), generator=generator)
    return (uniform < probabilities.cpu()).to(probabilities)


def log_probability_gradient(actions: Tensor, probabilities: Tensor) -> Tensor:
    """Return d log pi(a) / d logit for a Bernoulli policy p = sigmoid(logit): a - p, any shape."""
    return actions - probabilities


def scheduled_load(first_load: float, progress: float, descent_share: float) -> float:
    """Return the wanted ratio of expected cost to limit: cubic descent to 1 (Zhu & Gupta 2017).

    Zhu & Gupta 2017 (https://arxiv.org/abs/1710.01878), equation 1.

    Args:
        first_load: ratio of the whole network.
        progress: share of the search that is done.
        descent_share: share of the search in which the cost falls.
    """
    remaining = 1 - min(progress / descent_share, 1.0)
    return 1 + max(first_load - 1, 0.0) * remaining**3


def shared_threshold(
    logits: Tensor, temperature: float, limits: Limits, load: float, iterations: int = 50
) -> float:
    """Find the threshold at which the policy's expected cost meets a given load.

    The policy is p = sigmoid((logit - threshold) / temperature); its expected cost falls as the
    threshold rises, so bisection finds the one where `limits.load(p)` equals `load`.

    Args:
        logits: shape (agents,).
        load: worst ratio of expected cost to limit that is wanted, such as 1.0.

    Returns:
        The threshold; the lowest one tried where even keeping everything costs less.
    """
    finite = logits[logits.isfinite()]  # agents of channels that are gone have -inf
    low = float(finite.min()) - 20.0 * temperature
    high = float(finite.max()) + 20.0 * temperature
    for _ in range(iterations):
        middle = (low + high) / 2
        over = float(limits.load(torch.sigmoid((logits - middle) / temperature))) > load
        low, high = (middle, high) if over else (low, middle)
    return high
