"""What stays of the agents' probabilities."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from compress_export.policy_trace import MOMENTS, PolicyTrace, summarize


def summary_of(folder: Path, rows: list[tuple[float, list[float]]]) -> dict[str, Any]:
    trace = PolicyTrace(folder / "policy.npz")
    for progress, probabilities in rows:
        trace.note(progress, np.array(probabilities))
    trace.save()
    groups = [SimpleNamespace(name="a", classes=[0, 1]), SimpleNamespace(name="b", classes=[2, 3])]
    graph: Any = SimpleNamespace(groups=groups)
    summarize(folder / "policy.npz", graph, folder / "agents.json")
    found: dict[str, Any] = json.loads((folder / "agents.json").read_text())
    return found


def test_bands_and_means_counted_by_hand(tmp_path: Path) -> None:
    found = summary_of(tmp_path, [(0.5, [0.0, 0.5, 1.0, 0.25]), (1.0, [0.0, 1.0, 1.0, 0.75])])
    assert found["progress"] == [0.5, 1.0]
    assert found["certainty"] == [[0.25, 0.25, 0.25, 0.0, 0.25], [0.25, 0.0, 0.0, 0.25, 0.5]]
    assert [group["probability"] for group in found["groups"]] == [[0.25, 0.5], [0.625, 0.875]]


def test_long_searches_keep_evenly_spaced_moments(tmp_path: Path) -> None:
    steps = 1000
    rows = [(step / steps, [0.5] * 4) for step in range(1, steps + 1)]
    progress = summary_of(tmp_path, rows)["progress"]
    assert progress[-1] == 1.0
    assert len(progress) == MOMENTS + 1
    assert np.diff(progress) == pytest.approx(1 / MOMENTS, abs=0.001 + 1 / steps)


def test_a_method_without_agents_leaves_nothing(tmp_path: Path) -> None:
    graph: Any = SimpleNamespace(groups=[])
    summarize(tmp_path / "policy.npz", graph, tmp_path / "agents.json")
    assert not (tmp_path / "agents.json").exists()
