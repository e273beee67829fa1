"""Images of other classes than the tiny network was trained for: `three_digits:images`."""

from __future__ import annotations

from typing import Any

import numpy as np


def images() -> Any:
    """The digits 3, 5 and 8, 400 to train with and the rest to test."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    chosen = np.isin(digits.target, (3, 5, 8))
    pixels = (digits.images[chosen] * (255 / 16)).astype(np.uint8)
    labels = np.searchsorted((3, 5, 8), digits.target[chosen])
    return (pixels[:400], labels[:400]), (pixels[400:], labels[400:]), ["3", "5", "8"]
