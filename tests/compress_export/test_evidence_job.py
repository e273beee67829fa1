"""DIR/evidence of a job agrees with its report, and the page is drawn from it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tiny_jobs import Ended

from compressor.saved import load_model


def test_evidence_is_what_the_reports_figures_were_made_of(job: Callable[..., Ended]) -> None:
    ended = job("--board x86-64 --target-macs 0.5")
    folder = ended.out / "evidence"

    def read(name: str) -> Any:
        return json.loads((folder / name).read_text())

    latency, memory = read("latency.json"), read("memory.json")
    answers = np.load(folder / "answers.npz")
    for entry in ended.report["artifacts"]:
        name = entry["name"]
        assert len(latency[name]) == entry["latency_runs"] == 5
        assert np.percentile(latency[name], 50) == pytest.approx(entry["latency_ms"]["p50"], 1e-3)
        assert max(memory[name]["live_bytes"]) == entry["activation_bytes"]
        assert len(memory[name]["operators"]) == len(memory[name]["live_bytes"])
        assert (answers[name] == answers["labels"]).mean() == pytest.approx(entry["top1"])
    for stage, figures in ended.report["stages"].items():
        found = answers[f"torch {stage}"]
        assert (found == answers["labels"]).mean() == pytest.approx(figures["top1"])
    nets = [load_model(ended.out / "torch" / name) for name in ("baseline", "slim")]
    for layer in read("layers.json"):
        widths = [net.get_submodule(layer["layer"]).weight.shape[0] for net in nets]
        assert widths == [layer["channels"], layer["kept"]]
    (agents,) = read("agents.json")
    assert agents["progress"][-1] == 1.0
    assert np.sum(agents["certainty"], axis=1) == pytest.approx(1.0, abs=1e-3)
    page = (ended.out / "report.html").read_text()
    for key in ("layers", "certainty-rung-1", "latency", "memory", "before", "after"):
        assert f'id="{key}-title"' in page
