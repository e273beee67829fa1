"""Networks, losses and metrics that can't work, for test_bad_models.py."""

from __future__ import annotations

import numpy as np
from torch import Tensor, nn
from torch.nn import functional as F


class _Odd(nn.Module):
    """Answers an image with something odd."""

    def __init__(self, classes: int, answer: str) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 8, 3), nn.Linear(8, classes)
        self.answer = answer

    def forward(self, x: Tensor) -> object:
        features = self.conv(x)
        logits = self.head(features.mean(dim=(2, 3)))
        if self.answer == "fails":
            raise ValueError("pictures below 32 pixels are too small")
        if self.answer == "fails in training" and self.training:
            raise ValueError("no targets were given")
        if self.answer == "shifts":
            x -= 0.5
        if self.answer == "no gradient":
            return logits.detach()
        if self.answer == "two in training":
            return (logits, logits) if self.training else logits
        return {"text": "a cat", "two": (logits, features)}.get(self.answer, logits)


def raises(num_classes: int) -> nn.Module:
    raise RuntimeError("no licence file\nsecond line")


def no_module(num_classes: int) -> object:
    return {"classes": num_classes}


def no_argument() -> nn.Module:
    return _Odd(10, "logits")


def seven_classes(num_classes: int) -> nn.Module:
    return _Odd(7, "logits")


def text(num_classes: int) -> nn.Module:
    return _Odd(num_classes, "text")


def two(num_classes: int) -> nn.Module:
    return _Odd(num_classes, "two")


def fails(num_classes: int) -> nn.Module:
    return _Odd(num_classes, "fails")


def fails_in_training(num_classes: int) -> nn.Module:
    return _Odd(num_classes, "fails in training")


def shifts(num_classes: int) -> nn.Module:
    return _Odd(num_classes, "shifts")


def no_gradient(num_classes: int) -> nn.Module:
    return _Odd(num_classes, "no gradient")


def two_in_training(num_classes: int) -> nn.Module:
    return _Odd(num_classes, "two in training")


def linear(num_classes: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, num_classes))


def good(num_classes: int) -> nn.Module:
    return _Odd(num_classes, "logits")


def one_argument(outputs: Tensor) -> Tensor:
    return outputs.mean(dim=1)


def batch_mean(outputs: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(outputs, labels)


def array(outputs: Tensor, labels: Tensor) -> object:
    return outputs.detach().numpy().mean(axis=1)


def detached(outputs: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(outputs.detach(), labels, reduction="none")


def wrong_shapes(outputs: Tensor, labels: Tensor) -> Tensor:
    if outputs.shape != labels.shape:
        raise ValueError("outputs and masks differ")
    return outputs


def percent(outputs: Tensor, labels: Tensor) -> Tensor:
    return 100.0 * (outputs.argmax(dim=1) * 0 + 1)


def masks() -> object:
    images = np.zeros((40, 8, 8, 3), dtype=np.uint8)
    return (images, images[..., 0]), (images[:10], images[:10, ..., 0]), ["inside"]
