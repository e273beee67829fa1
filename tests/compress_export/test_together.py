"""A job under torchrun: the first process writes, and a process that dies costs an epoch."""

from __future__ import annotations

import os
import shlex
import signal
from pathlib import Path

import pytest
from test_resume import LIMIT_S, start_and_wait
from tiny_jobs import NETWORK, Ended

from compress_export.cli import main

TORCHRUN = ["torch.distributed.run", "--nproc-per-node", "2", "--max-restarts", "1"]
ONE_OF_TWO = {"TORCHELASTIC_RUN_ID": "test", "RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2"}


def test_a_process_that_is_killed_costs_an_epoch_at_most(tmp_path: Path, trained: Path) -> None:
    words = "--board jetson --stages prune --target-macs 0.4 --baseline-epochs 1"
    epochs = "--search-epochs 6 --finetune-epochs 1"
    arguments = [*NETWORK, *shlex.split(f"{words} {epochs}"), "--weights", trained]
    out = tmp_path / "out"
    agent = start_and_wait(
        out, tmp_path / "out.run" / "rung-1" / "search.pt", *arguments, before=TORCHRUN
    )
    os.kill(_process(agent.pid, rank=1), signal.SIGKILL)
    said, complained = agent.communicate(timeout=LIMIT_S)

    assert agent.returncode == 0, complained
    # Whichever the other process notices first: the lost connection, or torchrun's SIGTERM.
    assert "another process of this job has ended" in complained or "terminated" in complained
    assert "nothing is lost" in complained
    ended = Ended(0, out, said, complained)
    assert ended.report["verdict"] == "pass"
    assert ended.report["environment"]["torch"]["processes"] == 2
    assert said.count("2 processes train together") == 2
    for line in ("baseline epoch 1 ", "rung-1/search epoch 1 ", "rung-1/search epoch 6 "):
        assert said.count(line) == 1
    assert {path.name for path in tmp_path.iterdir()} == {"out", "out.run"}


def test_only_the_first_process_of_a_machine_names_a_mistake(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in ONE_OF_TWO.items():
        monkeypatch.setenv(name, value)
    assert main(["--board", "jetson", "--seed", "x"]) == 2
    assert capsys.readouterr().err == ""
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert main(["--board", "jetson", "--seed", "x"]) == 2
    assert "--seed x" in capsys.readouterr().err


def test_a_fleet_is_not_for_torchrun(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {**ONE_OF_TWO, "RANK": "0", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    assert main(["--board", "jetson", "--board", "rpi4"]) == 2
    assert "several boards under torchrun" in capsys.readouterr().err


def _process(agent: int, rank: int) -> int:
    """Return the number of the process of a rank that torchrun started last."""
    children = Path(f"/proc/{agent}/task/{agent}/children").read_text().split()
    for child in children:
        if f"RANK={rank}".encode() in Path(f"/proc/{child}/environ").read_bytes().split(b"\0"):
            return int(child)
    raise AssertionError(f"none of {children} has rank {rank}")
