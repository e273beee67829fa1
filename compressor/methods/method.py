"""The interface of all methods: a task in, a choice of channels out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import nn

from compressor.checkpoint import Checkpoint
from compressor.compute import Compute
from compressor.cost import Limits
from compressor.graph import ChannelGraph, Keep
from compressor.objective import CLASSIFICATION, Objective
from compressor.shrink import Shrinking
from compressor.training import Images, Observer, Recipe


@dataclass(frozen=True)
class PruneTask:
    """A network, what it may cost afterwards, and what may be spent on the choice.

    Attributes:
        start: the trained network, which a method may train in place; channels that earlier rounds
            dropped are gone already.
        graph: channel graph of the whole network; limits and choices count in its classes.
        limits: what the chosen network must not exceed.
        channel_step: multiple that kept widths are rounded to.
        images: training and validation images.
        recipe: how weights train during the search; methods without one ignore it.
        compute: device and arithmetic.
        seed: of everything random.
        checkpoint: where an interrupted search goes on.
        observer: told of steps and epochs.
        teacher: the original, to be distilled from; None trains on labels alone.
        objective: the loss that channels are chosen by, and the metric.
    """

    start: Shrinking
    graph: ChannelGraph
    limits: Limits
    channel_step: int
    images: Images
    recipe: Recipe
    compute: Compute
    seed: int
    checkpoint: Checkpoint
    observer: Observer
    teacher: nn.Module | None = None
    objective: Objective = CLASSIFICATION


@dataclass(frozen=True)
class Choice:
    """Which channels stay, and the network that they are to be cut out of.

    Attributes:
        left: the network with the weights that the search left; some channels may be gone already.
        keep: classes of the whole network that stay, within the limits.
        ranking: what `projection.project` chooses again by where a limit turns out to be another,
            shape (classes of the whole network,); higher is kept longer, -inf for what is gone. At
            the same limits it gives `keep`.
    """

    left: Shrinking
    keep: Keep
    ranking: NDArray[np.float64]


Method = Callable[[PruneTask], Choice]
"""Raises projection.TargetError where no choice of channels meets the limits."""
