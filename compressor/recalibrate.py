"""Give batch norms the statistics of the network that they are in now."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from compressor.compute import Compute
from compressor.modes import eval_mode
from compressor.training import Batch, Images

RECALIBRATION_BATCHES = 20


def recalibrate(
    model: nn.Module, images: Images, compute: Compute, batches: int = RECALIBRATION_BATCHES
) -> None:
    """Replace the running statistics of all batch norms by their mean over training batches.

    A network whose inputs lost channels sees other means and variances than those it was trained
    with. The post-statistics of Yu & Huang 2019 (https://arxiv.org/abs/1903.05134), to whom a
    thousand images were enough. What else stays as it was: `measure_norms`.

    Args:
        model: moved to the device of `compute`.
        images: the first batches of its epoch 0 are taken.
        batches: at least 1; fewer where an epoch has fewer.
    """
    if batches < 1:
        raise ValueError(f"batches is {batches}; batch norms need at least 1 for their statistics")
    measure_norms(model, islice(images.train(0), batches), compute)


def measure_norms(model: nn.Module, batches: Iterable[Batch], compute: Compute) -> None:
    """Set the running statistics of all batch norms to their mean over some batches.

    Parameters, the modes of all modules and the momentum of the norms stay as they were; dropout is
    off. Networks without batch norm are left alone, and the batches unread.

    Args:
        model: moved to the device of `compute`.
        batches: at least one.
    """
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    with eval_mode(compute.place(model)), torch.no_grad():
        for norm in norms:
            norm.train()
            norm.reset_running_stats()
            norm.momentum = None  # torch's cumulative average: all batches count alike
        try:
            for x, _ in batches:
                model(compute.images(x))
        finally:
            for norm, momentum in zip(norms, momenta, strict=True):
                norm.momentum = momentum
