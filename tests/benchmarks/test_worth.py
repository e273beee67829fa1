"""What channels are worth: rank correlation, wrong signs, noise of a mean."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from benchmarks.pruning.worth import figures, order


@given(st.lists(st.floats(-10, 10), min_size=5, max_size=20, unique=True))
def test_rank_correlation_is_that_of_scipy(values: list[float]) -> None:
    one = torch.tensor(values, dtype=torch.float64)
    other = one[torch.randperm(len(one))]
    expected = spearmanr(one.numpy(), other.numpy()).statistic
    assert order(one, other) == pytest.approx(expected, abs=1e-9)


def test_an_estimate_is_judged_by_its_mean_over_batches() -> None:
    truth = torch.tensor([[1.0, 2.0, -1.0, 3.0]], dtype=torch.float64)
    noise = torch.tensor(np.random.default_rng(0).normal(0, 1, (400, 4)))
    noise -= noise.mean(0)
    found = figures(truth + noise, truth, torch.ones(4).double())
    assert found["correlation"] == pytest.approx(1)
    assert found["order"] == pytest.approx(1)
    assert found["wrong_sign"] == 0
    # The standard error of a mean of 400 is a twentieth; the median |worth| is 1.5.
    assert found["median_signal_to_noise"] == pytest.approx(1.5 * 20, rel=0.5)
    turned = figures(-truth + noise, truth, torch.ones(4).double())
    assert (turned["order"], turned["wrong_sign"]) == (pytest.approx(-1), 4)


def test_the_order_is_that_of_worth_per_price() -> None:
    truth = torch.tensor([[1.0, 2.0, 3.0]], dtype=torch.float64).repeat(2, 1)
    price = torch.tensor([1.0, 4.0, 9.0], dtype=torch.float64)
    assert figures(truth, truth, price)["order"] == pytest.approx(1)
    assert figures(truth.flip(1), truth, torch.ones(3).double())["order"] == pytest.approx(-1)
