"""examples/custom_project, run by the commands of its README."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
PROJECT = ROOT / "examples" / "custom_project"


def commands() -> list[list[str]]:
    (block,) = re.findall(r"```\n(.*?)```", (PROJECT / "README.md").read_text(), re.DOTALL)
    return [shlex.split(line) for line in block.splitlines()]


def run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    assert command[0] == "compress-export"
    return subprocess.run(
        [sys.executable, "-m", "compress_export", *command[1:]],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project after the job. Tests only read it."""
    folder = tmp_path_factory.mktemp("project") / "mine"
    shutil.copytree(PROJECT, folder)
    dry, job = commands()
    before = sorted(folder.rglob("*"))
    planned = run(dry, folder)
    assert planned.returncode == 0, planned.stderr
    assert "target:   0.5 of the MACs" in planned.stdout
    assert sorted(p for p in folder.rglob("*") if "__pycache__" not in p.parts) == before
    ended = run(job, folder)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "iou %" in ended.stdout
    assert "verdict: pass" in ended.stdout
    return folder


@pytest.fixture(scope="module")
def report(folder: Path) -> dict[str, Any]:
    out = folder / "compress-export-out" / "bench-pc"
    found: dict[str, Any] = json.loads((out / "report.json").read_text())
    return found


def test_the_metric_is_named_and_decides(report: dict[str, Any]) -> None:
    assert report["metric"] == "discs.judge:iou"
    baseline, slim = report["stages"]["baseline"], report["stages"]["slim"]
    assert baseline["top1"] is None
    assert min(baseline["score"], slim["score"]) > 0.8
    assert slim["macs"] <= 0.5 * baseline["macs"]
    drops = [c for c in report["checks"] if c["budget"] == "accuracy_drop_points"]
    assert [c["status"] for c in drops] == ["pass", "pass"]
    scores = {a["name"]: a["score"] for a in report["artifacts"]}
    for check in drops:
        expected = (baseline["score"] - scores[check["file"]]) * 100
        assert check["value"] == pytest.approx(expected, abs=1e-6)
    assert {a["top1"] for a in report["artifacts"]} == {None}


def test_the_files_score_is_what_numpy_finds(
    folder: Path, report: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnxruntime

    data = module_of(folder, monkeypatch)
    _, (images, masks), _ = data.images()
    path = folder / "compress-export-out" / "bench-pc" / "bundle" / "slim.int8.onnx"
    session = onnxruntime.InferenceSession(str(path))
    x = ((images.transpose(0, 3, 1, 2) / 255 - 0.4) / 0.2).astype(np.float32)
    found = session.run(None, {session.get_inputs()[0].name: x})[0][:, 0] > 0
    truth = masks == 1
    iou = (found & truth).sum((1, 2)) / (found | truth).sum((1, 2))
    (score,) = [a["score"] for a in report["artifacts"] if a["path"] == "bundle/slim.int8.onnx"]
    assert score == pytest.approx(iou.mean(), abs=2e-3)  # some pixels lie on the edge of 0


def module_of(folder: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    from importlib import import_module

    monkeypatch.syspath_prepend(str(folder))
    return import_module("discs.data")


def test_the_curves_are_the_metrics(folder: Path) -> None:
    run_folder = folder / "compress-export-out" / "bench-pc.run"
    (header, *rows) = (run_folder / "baseline.csv").read_text().splitlines()
    assert header == "epoch,loss,validation_score"
    assert len(rows) == 6
    assert "train_score" in (run_folder / "rung-1" / "search.csv").read_text()
