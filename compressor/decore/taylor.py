"""How much the loss is expected to rise when a class of channels goes: the agents' prior."""

from __future__ import annotations

from itertools import islice

import torch
from torch import Tensor, nn

from compressor.compute import Compute
from compressor.epochs import DivergedError
from compressor.graph import ChannelGraph
from compressor.masks import ChannelMasks
from compressor.modes import eval_mode
from compressor.objective import CLASSIFICATION, Objective
from compressor.training import Images

PRIOR_BATCHES = 40


def taylor_scores(
    model: nn.Module,
    graph: ChannelGraph,
    images: Images,
    compute: Compute,
    batches: int = PRIOR_BATCHES,
    *,
    with_means: bool = False,
    objective: Objective = CLASSIFICATION,
) -> Tensor:
    """Return the mean squared first-order change of the loss per dropped class, shape (classes,).

    The gradient of an image's loss with respect to its mask entry is the first-order change;
    squared and averaged as in Molchanov et al. 2019, equation 8 (https://arxiv.org/abs/1906.10771).
    Runs in eval mode on the first training batches of epoch 0; leaves the model as it was.

    Args:
        with_means: a dropped class gives its mean instead of zero, as in `ChannelMasks`.

    Raises:
        DivergedError: the loss is no number.
    """
    total = torch.zeros(graph.class_count, dtype=torch.float64)
    count = 0
    compute.place(model)
    with eval_mode(model), ChannelMasks(model, graph, with_means=with_means) as masks:
        for x, labels in islice(images.train(0), batches):
            mask = torch.ones(len(x), graph.class_count, device=compute.device, requires_grad=True)
            masks.set(mask)
            losses = objective.losses(model(compute.images(x)), labels.to(compute.device))
            if not bool(losses.isfinite().all()):
                raise DivergedError(
                    "the network to be pruned has a loss that is no number on training images; "
                    "train it with a lower --learning-rate, or mend --loss"
                )
            (gradient,) = torch.autograd.grad(losses.sum(), mask)
            total += gradient.double().square().sum(dim=0).cpu()
            count += len(x)
    return total / max(count, 1)
