"""A network with two outputs through the whole job, judged by functions that look at both."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tiny_jobs import QUICK, run_here

from compress_export import load_model, load_task
from compress_export.options import JobOptions

WORDS = (
    "--board jetson --model two_outputs:two_heads --loss two_outputs:loss "
    "--metric two_outputs:metric --data digits --input-size 8 --batch-size 64 --threads 1 "
    "--calibration-samples 64 --latency-runs 3 --learning-rate 0.005 --target-macs 0.6 "
    "--max-drop 90"
)


def test_two_outputs_through_the_whole_job(tmp_path: Path) -> None:
    ended = run_here(tmp_path / "out", *WORDS.split(), *QUICK, "--baseline-epochs", "3")
    assert ended.code == 0, ended.complained
    report = ended.report
    scores = {a["name"]: a["score"] for a in report["artifacts"]}
    assert len(scores) == 8
    stages = report["stages"]
    assert stages["slim"]["macs"] <= 0.6 * stages["baseline"]["macs"]
    assert stages["slim"]["score"] > 0.3  # by chance: about 0.05 for the class, 0.25 for the value
    for name, score in scores.items():
        network = stages[name.partition(".")[0]]["score"]
        assert score == pytest.approx(network, abs=0.05 if "int8" in name else 2e-3)

    # an oracle: the saved network, and the metric in numpy
    slim = load_model(tmp_path / "out" / "torch" / "slim")
    options = JobOptions(board="jetson", model="two_outputs:two_heads", input_size=8)
    points = []
    for x, labels in load_task(options).test_batches():
        logits, value = (part.detach().numpy() for part in slim(x))
        near = np.abs(value[:, 0, 0] - labels.numpy() / 10) < 0.3
        points.append(((logits.argmax(1) == labels.numpy()) + near.astype(float)) / 2)
    assert stages["slim"]["score"] == pytest.approx(np.concatenate(points).mean())
