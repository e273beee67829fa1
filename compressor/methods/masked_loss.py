"""The loss that a choice of channels would have right away, with fitting batch-norm statistics."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice

import torch
from torch import nn

from compressor.graph import Keep
from compressor.masks import ChannelMasks
from compressor.methods.method import PruneTask
from compressor.recalibrate import measure_norms

_JUDGED_BATCHES = 8
_RECALIBRATION_BATCHES = 4


class MaskedLoss:
    """Judges choices of channels on training images that are put aside for that.

    Validation images choose epochs later, so they have no say here. All choices see the same
    images, and weights never train on the way.

    The network's batch norms are measured anew for every choice: with channels gone, the statistics
    behind them are those of another network (Li et al. 2020, EagleEye,
    https://arxiv.org/abs/2007.02491).

    Attributes:
        batches: forward passes that one judgement takes.
    """

    def __init__(self, task: PruneTask) -> None:
        self._compute, self._objective, start = task.compute, task.objective, task.start
        self._model = task.compute.place(start.model).eval()
        self._graph, self._classes = start.graph, start.classes
        batches = list(islice(task.images.train(0), _RECALIBRATION_BATCHES + _JUDGED_BATCHES))
        part = len(batches) * _RECALIBRATION_BATCHES // (_RECALIBRATION_BATCHES + _JUDGED_BATCHES)
        self._measured = batches[: max(part, 1)]
        self._judged = batches[max(part, 1) :] or batches  # a single batch serves for both
        self.batches = len(self._measured) + len(self._judged)

    def __call__(self, keep: Keep) -> float:
        """Return the mean loss under a keep set of the whole network."""
        total, count = 0.0, 0
        masks = ChannelMasks(self._model, self._graph)
        mask = torch.from_numpy(keep[self._classes]).float().to(self._compute.device)
        with torch.no_grad(), masks, _statistics_put_back(self._model):
            masks.set(mask)
            measure_norms(self._model, self._measured, self._compute)
            for x, labels in self._judged:
                outputs = self._model(self._compute.images(x))
                losses = self._objective.losses(outputs, labels.to(self._compute.device))
                total += float(losses.sum())
                count += len(x)
        return total / count


@contextmanager
def _statistics_put_back(model: nn.Module) -> Iterator[None]:
    """Leave the buffers of a network, the statistics of its batch norms, as they were."""
    before = [(buffer, buffer.clone()) for buffer in model.buffers()]
    try:
        yield
    finally:
        for buffer, value in before:
            buffer.copy_(value)
