"""What is wanted of the outputs: a loss to train by and a metric to decide by."""

from torch import Tensor
from torch.nn import functional as F


def loss(outputs: Tensor, masks: Tensor) -> Tensor:
    """Return cross-entropy plus 1 - dice for every image, shape (N,).

    Args:
        outputs: logits, float32 (N, 1, 32, 32).
        masks: as data.images gives them, (N, 32, 32).
    """
    logits, truth = outputs[:, 0], masks.float()
    entropy = F.binary_cross_entropy_with_logits(logits, truth, reduction="none").mean(dim=(1, 2))
    found = logits.sigmoid()
    dice = 2 * (found * truth).sum(dim=(1, 2)) / (found + truth).sum(dim=(1, 2)).clamp_min(1)
    return entropy + 1 - dice


def iou(outputs: Tensor, masks: Tensor) -> Tensor:
    """Return intersection over union of every image, shape (N,), in 0..1."""
    found, truth = outputs[:, 0] > 0, masks > 0
    both = (found & truth).sum(dim=(1, 2))
    either = (found | truth).sum(dim=(1, 2))
    return both / either.clamp_min(1)
