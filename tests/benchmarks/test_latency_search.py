"""Two files compared round by round, and what an interrupted pair goes on with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.pruning.latency_search import milliseconds, ratios, remembered
from runtime_bench import Burst


def bursts(*medians_ms: float) -> list[Burst]:
    return [Burst(ms, 2 * ms) for ms in medians_ms]


def test_a_slow_round_slows_both_files() -> None:
    assert ratios(bursts(3, 30, 3), bursts(2, 20, 2)) == pytest.approx((1.5, 1.5, 1.5))
    assert milliseconds(bursts(3, 30, 3)) == 3


def test_a_single_disturbed_burst_does_not_count() -> None:
    low, middle, high = ratios(bursts(1, 1, 9, 1, 1), bursts(1, 1, 1, 1, 1))
    assert (low, middle, high) == (1, 1, 1)


def test_what_was_measured_is_not_measured_again(tmp_path: Path) -> None:
    measured: list[int] = []

    def measure() -> dict[str, Any]:
        measured.append(1)
        return {"limit_ms": 0.5}

    note = tmp_path / "run" / "wanted.json"
    assert remembered(note, measure) == {"limit_ms": 0.5}
    assert remembered(note, measure) == {"limit_ms": 0.5}
    assert len(measured) == 1
    assert json.loads(note.read_text()) == {"limit_ms": 0.5}


def test_an_interrupted_measurement_leaves_no_note(tmp_path: Path) -> None:
    def fail() -> dict[str, Any]:
        raise KeyboardInterrupt

    note = tmp_path / "wanted.json"
    with pytest.raises(KeyboardInterrupt):
        remembered(note, fail)
    assert not note.exists()
    assert remembered(note, lambda: {"limit_ms": 1.0}) == {"limit_ms": 1.0}
