"""Jobs under torchrun: the same result, how fast, and after a process was killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

COUNTS = (1, 2, 4)
_JOB = (
    "--board jetson --data digits --input-size 8 --batch-size 128 --threads 1 --stages prune "
    "--target-macs 0.4"
)
_PLAIN = "--model benchmarks.crash.network:small"
_BASELINE = f"{_JOB} {_PLAIN} --baseline-epochs 8 --method l1 --search-epochs 0 --finetune-epochs 0"
_SHORT = "--baseline-epochs 1 --search-epochs 4 --finetune-epochs 3 --learning-rate 0.003"


def equality(work: Path) -> Iterator[dict[str, Any]]:
    """Compare the networks that several processes end with to those of one.

    Yields:
        Largest difference of the slim network's weights, relative to the largest weight of their
        tensor, and of the agents' last probabilities; None where other channels were chosen.
    """
    _finish(1, work / "trained", _BASELINE)
    weights = f"--weights {work}/trained/torch/baseline/model.safetensors"
    frozen = "--model benchmarks.distributed.network:frozen"
    for name, model in (("frozen", frozen), ("plain", _PLAIN)):
        for count in COUNTS:
            out = work / f"{name}-{count}"
            _finish(count, out, f"{_JOB} {model} {weights} {_SHORT}")
            if count > 1:
                found = _differences(work / f"{name}-1", out)
                yield {"kind": "equality", "network": name, "processes": count, **found}


def throughput(work: Path) -> Iterator[dict[str, Any]]:
    """Time training steps and search steps of a ResNet-20 with one process and with two."""
    for count in COUNTS[:2]:
        note = work / "steps.json"
        command = _torchrun(count, "benchmarks.distributed.steps", str(note))
        subprocess.run(command, env=_environment(), check=True, capture_output=True)
        for row in json.loads(note.read_text(encoding="utf-8")):
            yield {"kind": "throughput", "processes": count, **row}


def kills(work: Path) -> Iterator[dict[str, Any]]:
    """Kill either of two processes in the middle of a search, and let torchrun start them again."""
    words = f"{_JOB} {_PLAIN} {_SHORT}"
    _finish(2, work / "undisturbed", words)
    for rank in range(2):
        out = work / f"killed-{rank}"
        agent = _start(2, out, words, "--max-restarts", "1")
        checkpoint = out.with_name(f"{out.name}.run") / "rung-1" / "search.pt"
        while not checkpoint.exists():
            if agent.poll() is not None:
                raise RuntimeError(f"torchrun ended before the first epoch: {_done(agent)}")
            time.sleep(0.01)
        os.kill(_process(agent.pid, rank), signal.SIGKILL)
        killed_s = time.monotonic()
        said = _done(agent)
        yield {
            "kind": "kill",
            "rank": rank,
            "epochs_again": said.count("search epoch 1 ") - 1,
            "seconds_to_end": round(time.monotonic() - killed_s, 1),
            **_differences(work / "undisturbed", out),
        }


def _torchrun(count: int, *words: str) -> list[str]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(count)]
    return [*launcher, "-m", *words]


def _start(count: int, out: Path, words: str, *of_torchrun: str) -> subprocess.Popen[str]:
    """Start a job in float32; a single process without torchrun."""
    arguments = ["benchmarks.distributed.float32", *words.split(), "--out", str(out)]
    command = [sys.executable, "-m", *arguments]
    if count > 1:
        command = _torchrun(count, *arguments)
        command[3:3] = of_torchrun
    return subprocess.Popen(
        command, env=_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def _finish(count: int, out: Path, words: str) -> None:
    """Run a job that is not there yet."""
    if not out.exists():
        _done(_start(count, out, words))


def _done(process: subprocess.Popen[str]) -> str:
    said, complained = process.communicate()
    if process.returncode != 0:
        raise RuntimeError(f"ended with {process.returncode}: {complained[-2000:]}")
    return said


def _environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def _differences(expected: Path, found: Path) -> dict[str, Any]:
    ours, theirs = (
        load_file(d / "torch" / "slim" / "model.safetensors") for d in (found, expected)
    )
    shapes = [{name: value.shape for name, value in side.items()} for side in (ours, theirs)]
    policies = [_last_probabilities(folder) for folder in (found, expected)]
    return {
        "same_widths": shapes[0] == shapes[1],
        "weights": max(map(_relative, ours.values(), theirs.values()))
        if shapes[0] == shapes[1]
        else None,
        "probabilities": float(np.abs(policies[0] - policies[1]).max()),
        "validation_top1": [_score(folder) for folder in (found, expected)],
    }


def _relative(ours: np.ndarray[Any, Any], theirs: np.ndarray[Any, Any]) -> float:
    return float(np.abs(ours - theirs).max() / max(np.abs(theirs).max(), 1e-9))


def _last_probabilities(out: Path) -> np.ndarray[Any, Any]:
    trace = out.with_name(f"{out.name}.run") / "rung-1" / "policy.npz"
    with np.load(trace, allow_pickle=False) as file:
        last: np.ndarray[Any, Any] = file["probabilities"][-1].astype(np.float64)
    return last


def _score(out: Path) -> float:
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    return float(report["stages"]["slim"]["validation_top1"])


def _process(agent: int, rank: int) -> int:
    """Return the number of the process of a rank."""
    for child in Path(f"/proc/{agent}/task/{agent}/children").read_text(encoding="ascii").split():
        if f"RANK={rank}".encode() in Path(f"/proc/{child}/environ").read_bytes().split(b"\0"):
            return int(child)
    raise RuntimeError(f"torchrun has no process of rank {rank}")
