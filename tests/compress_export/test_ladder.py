"""Which rung of the ladder still counts as within the accuracy drop."""

from __future__ import annotations

import pytest
import torch

from compress_export.pruning import may_be_within
from compressor.paired import PairedDifference


def drop(images: int, lost: int, won: int = 0) -> PairedDifference:
    """The baseline is right on all images but `won`; the slim net on those, and not on `lost`."""
    before, after = torch.ones(images), torch.ones(images)
    before[:won] = 0
    after[images - lost :] = 0
    return PairedDifference.of(before, after)


@pytest.mark.parametrize(
    ("images", "lost", "won", "within"),
    [
        (144, 0, 0, True),
        (144, 2, 0, True),  # 1.4 points, give or take 1.0
        (144, 4, 0, False),  # 2.8, give or take 1.4
        (5000, 25, 0, True),  # 0.5 points
        (5000, 40, 0, False),  # 0.8 points, give or take 0.13
        (5000, 145, 100, False),  # 0.9 points, give or take 0.31
        (5000, 130, 100, True),  # 0.6 points, give or take 0.30
        (1, 1, 0, False),
    ],
)
def test_few_images_leave_room_for_chance(images: int, lost: int, won: int, within: bool) -> None:
    assert may_be_within(drop(images, lost, won), 0.5) == within


def test_the_standard_error_is_that_of_the_mean_difference() -> None:
    """Of losses and wins alone: variance of the differences over N."""
    found = drop(5000, 140, 100)
    mean = 40 / 5000
    expected = ((240 / 5000 - mean**2) / 4999) ** 0.5
    assert found.mean == pytest.approx(mean)
    assert found.standard_error == pytest.approx(expected, rel=1e-6)
