"""A run that was killed goes on to the result that it would have had."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_jobs import NETWORK, QUICK, Ended, in_a_process, run_here

LIMIT_S = 900  # only a hang takes that long, also on a busy machine


def start_and_wait(
    out: Path, awaited: Path, *arguments: str | Path, before: Sequence[str] = ()
) -> subprocess.Popen[str]:
    """Start a job in a process of its own and return when a file of it exists.

    Args:
        before: a module that starts it, with options.
    """
    command, environment = in_a_process(out, *arguments)
    if before:
        command[1:1] = ["-m", *before]
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    give_up = time.monotonic() + LIMIT_S
    while not awaited.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < give_up, f"{awaited} did not appear"
        time.sleep(0.005)
    return process


def kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL


def result(ended: Ended) -> dict[str, Any]:
    """Everything of a result that doesn't measure time or memory."""
    assert ended.code == 0, ended.complained
    report = ended.report
    networks = {
        path.relative_to(ended.out).as_posix(): path.read_bytes()
        for path in (ended.out / "torch").rglob("model.*")  # weights, and the widths that were kept
    }
    files = {artifact["name"]: artifact["sha256"] for artifact in report["artifacts"]}
    return {"stages": report["stages"], "files": files, "networks": networks}


def test_killed_in_mid_search(tmp_path: Path, trained: Path) -> None:
    words = "--board jetson --stages prune,quantize --target-macs 0.4 --baseline-epochs 1 --seed 3"
    epochs = "--search-epochs 8 --finetune-epochs 2"
    arguments = [*NETWORK, *shlex.split(f"{words} {epochs}"), "--weights", trained]
    out = tmp_path / "out"
    checkpoint = tmp_path / "out.run" / "rung-1" / "search.pt"
    kill(start_and_wait(out, checkpoint, *arguments))
    assert 1 <= torch.load(checkpoint, weights_only=True)["epoch"] < 8
    assert not out.exists()

    refused = run_here(out, *arguments)
    assert refused.code == 2
    assert "--resume" in refused.complained
    other = run_here(out, *arguments, "--penalty", "2", "--method", "paper", "--resume")
    assert other.code == 2
    assert "--method was decore and is paper" in other.complained

    resumed = run_here(out, *arguments, "--resume")
    assert "search epoch 1 " not in resumed.said
    undisturbed = run_here(tmp_path / "undisturbed", *arguments)
    assert result(resumed) == result(undisturbed)
    assert {"slim.int8.onnx", "slim.int8.tflite"} <= set(result(resumed)["files"])
    rows = (resumed.run / "rung-1" / "search.csv").read_text()
    assert rows == (undisturbed.run / "rung-1" / "search.csv").read_text()
    assert rows.count("\n") == 1 + 8


def test_killed_between_two_rungs(tmp_path: Path, trained: Path) -> None:
    """The first rung is loaded, not run, and yet dropout draws the same in the second."""
    words = "--board jetson --stages prune --max-drop 100 --baseline-epochs 0 --seed 4"
    epochs = "--search-epochs 3 --finetune-epochs 1"
    arguments = [*NETWORK, *shlex.split(f"{words} {epochs}"), "--weights", trained]
    out = tmp_path / "out"
    kill(start_and_wait(out, tmp_path / "out.run" / "rung-1" / "figures.json", *arguments))
    resumed = run_here(out, *arguments, "--resume")
    assert "rung-1/search epoch" not in resumed.said
    assert result(resumed) == result(run_here(tmp_path / "undisturbed", *arguments))


def test_stopped_before_the_first_epoch_of_a_later_training(
    tmp_path: Path, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The finished rung is loaded then, and its dropout is still that of a smaller network."""

    def stopped(*_: object) -> float:
        raise KeyboardInterrupt

    words = "--board jetson --stages prune --target-macs 0.4 --codebook 8 --codebook-epochs 1"
    arguments = [*NETWORK, *QUICK, *shlex.split(words), "--weights", trained]
    monkeypatch.setattr("compress_export.tuning.tune", stopped)
    assert run_here(tmp_path / "out", *arguments).code == 130
    monkeypatch.undo()
    resumed = run_here(tmp_path / "out", *arguments, "--resume")
    assert "finetune epoch" not in resumed.said
    assert result(resumed) == result(run_here(tmp_path / "undisturbed", *arguments))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_job_and_keeps_its_progress(
    tmp_path: Path, trained: Path, number: signal.Signals, code: int
) -> None:
    words = "--board jetson --stages prune --target-macs 0.4 --baseline-epochs 0"
    epochs = "--search-epochs 2000 --finetune-epochs 1"
    arguments = [*NETWORK, *shlex.split(f"{words} {epochs}"), "--weights", trained]
    checkpoint = tmp_path / "out.run" / "rung-1" / "search.pt"
    process = start_and_wait(tmp_path / "out", checkpoint, *arguments)
    os.kill(process.pid, number)
    _, complained = process.communicate(timeout=LIMIT_S)
    assert process.returncode == code
    assert complained.count("\n") == 1
    assert "--resume" in complained
    assert checkpoint.exists()
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "out.run" / "staged").exists()
