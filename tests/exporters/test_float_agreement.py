"""How far a float file may be from torch: as far as rounding goes, and no further."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from exporters.checks import FLOAT_TOLERANCE, ROUNDINGS, likeness
from exporters.errors import CheckError
from exporters.export import _rounding

IMAGES = np.random.default_rng(0).standard_normal((8, 3, 4, 4)).astype(np.float32)
LOGITS = [np.random.default_rng(1).standard_normal((8, 5)).astype(np.float32)]
LARGEST = float(np.abs(LOGITS[0]).max())


def off_by(share: float, rounding: float) -> float | None:
    """Compare with a file whose outputs are off by a share of the largest one."""
    return likeness(
        "made.onnx",
        lambda _: [LOGITS[0] + np.float32(share * LARGEST)],
        lambda: iter([IMAGES]),
        [LOGITS],
        precision="float32",
        rounding=lambda: rounding,
    ).agreement


def test_a_well_behaved_network_has_the_usual_tolerance() -> None:
    assert off_by(0.9 * FLOAT_TOLERANCE, 0.0) == 1.0
    with pytest.raises(CheckError, match="1e-03 is allowed; the converter changed the model"):
        off_by(1.1 * FLOAT_TOLERANCE, 1e-7)


def test_a_network_that_rounds_badly_in_torch_may_round_badly_in_a_file() -> None:
    rounding = 3 * FLOAT_TOLERANCE / ROUNDINGS
    assert off_by(2 * FLOAT_TOLERANCE, rounding) == 1.0
    with pytest.raises(CheckError, match="3e-03 is allowed"):
        off_by(4 * FLOAT_TOLERANCE, rounding)


class Cancelling(nn.Module):
    """Adds a number and takes it away: most digits of x are gone."""

    def forward(self, x: Tensor) -> Tensor:
        return ((x + 4096.0) - 4096.0).mean((2, 3))


def test_rounding_is_measured_against_float64() -> None:
    with torch.no_grad():
        outputs = Cancelling()(torch.from_numpy(IMAGES)).numpy()
    exact = IMAGES.astype(np.float64).mean((2, 3))
    expected = np.abs(outputs - exact).max() / np.abs(exact).max()
    assert _rounding(Cancelling(), IMAGES) == pytest.approx(expected, rel=1e-6)
    assert expected > 1e-5


class OfFloats(nn.Module):
    """Has a constant that only float32 goes with."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ torch.ones(48, 5, dtype=torch.float32)


def test_a_network_that_takes_float32_alone_counts_as_exact() -> None:
    assert _rounding(OfFloats(), IMAGES) == 0.0
