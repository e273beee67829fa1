"""Bootstrap intervals and areas of the pruning comparison."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.pruning.results import pack, refuse_mixed, unpack
from benchmarks.pruning.statistics import area_under, paired_difference


def answers(rng: np.random.Generator, accuracy: float) -> np.ndarray:
    return rng.random(4000) < accuracy


def test_packing_keeps_every_answer() -> None:
    right = answers(np.random.default_rng(0), 0.8)[:3997]
    assert (unpack(pack(right), 3997) == right).all()


def test_interval_covers_the_truth_at_about_its_level() -> None:
    """Two methods of the same accuracy: an interval excludes 0 in few of many experiments."""
    rng = np.random.default_rng(1)
    excluded = 0
    for _ in range(40):
        ours = {seed: answers(rng, 0.85) for seed in range(3)}
        theirs = {seed: answers(rng, 0.85) for seed in range(3)}
        found = paired_difference(ours, theirs)
        excluded += not found.low <= 0 <= found.high
    assert excluded <= 6


def test_a_real_gap_is_found_with_its_size() -> None:
    rng = np.random.default_rng(2)
    theirs = {seed: answers(rng, 0.8) for seed in range(3)}
    ours = {seed: right | (rng.random(4000) < 0.15) for seed, right in theirs.items()}
    found = paired_difference(ours, theirs)
    assert found.above
    assert found.seeds == 3
    assert found.mean == pytest.approx(3.0, abs=0.6)  # 0.2 x 0.15 more are right
    assert found.low < found.mean < found.high
    back = paired_difference(theirs, ours)
    mirrored = (-found.mean, -found.high, -found.low)
    assert (back.mean, back.low, back.high) == pytest.approx(mirrored, abs=0.1)


def test_methods_without_a_common_seed_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match="no seed in common"):
        paired_difference({0: np.ones(4, bool)}, {1: np.ones(4, bool)})


def test_area_is_the_mean_height() -> None:
    assert area_under([(0, 0.5), (10, 0.9)], 0, 10) == pytest.approx(0.7)
    assert area_under([(10, 0.9), (0, 0.5), (5, 0.9)], 5, 10) == pytest.approx(0.9)


def test_runs_of_other_settings_are_no_seeds() -> None:
    rows = [
        {"network": network, "epochs": epochs, "rate": rate}
        for network, epochs, rate in (("a", 5, 0.1), ("a", 5, 0.1), ("a", 6, 0.2), ("b", 5, 0.3))
    ]
    refuse_mixed(rows, ("network", "epochs"), ("rate",))
    with pytest.raises(ValueError, match="^a: runs with rate 0.1 and 0.2 don't belong"):
        refuse_mixed(rows, ("network",), ("rate",))
