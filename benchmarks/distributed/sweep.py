"""A sweep on Ray whose worker is killed in the middle of a trial."""

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

FILE = Path(__file__).with_name("sweep.yaml")
_DONE_BEFORE = 3
"""Trials that are over when a worker is killed."""


def killed_sweep(work: Path) -> Iterator[dict[str, Any]]:
    """Run the sweep, kill a worker on the way; yield a row about that, and one for each trial."""
    out = work / "sweep"
    command = [sys.executable, "-m", "compress_export", "sweep", str(FILE), "--out", str(out)]
    start = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        victim = _kill_a_worker(out, process)
        said, _ = process.communicate()
    seconds = time.monotonic() - start
    codes = json.loads((out / "sweep.json").read_text(encoding="utf-8"))
    yield {
        "kind": "sweep",
        "trials": len(codes),
        "code": process.returncode,
        "killed": victim,
        "killed_resumed": "resumed" if _resumed(out / f"{victim}.log") else "started anew",
        "seconds": round(seconds),
        "load_average": os.getloadavg()[0],
        "lines": said.splitlines()[-1:],
    }
    for name, code in codes.items():
        yield {"kind": "trial", "name": name, "code": code, **_figures(out / name)}


def _kill_a_worker(out: Path, process: subprocess.Popen[str]) -> str:
    """Kill the worker of a trial that has trained an epoch; return the trial's name."""
    while process.poll() is None:
        time.sleep(0.05)
        if len(list(out.glob("*/report.json"))) < _DONE_BEFORE:
            continue
        for checkpoint in out.glob("*.run/baseline.pt"):
            run = checkpoint.parent
            if not (run / "finished").exists():
                os.kill(int((run / "lock").read_text(encoding="ascii")), signal.SIGKILL)
                return run.stem
    raise RuntimeError("the sweep was over before a worker could be killed")


def _resumed(log: Path) -> bool:
    """Whether the second worker went on: the first epoch stands in the log once."""
    return log.read_text(encoding="utf-8").count("baseline epoch 1 ") == 1


def _figures(folder: Path) -> dict[str, Any]:
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    (file,) = (f for f in report["artifacts"] if f["path"].startswith("bundle/"))
    return {
        "verdict": report["verdict"],
        "size_bytes": file["size_bytes"],
        "top1": file["top1"],
        "p90_ms": file["latency_ms"]["p90"],
        "macs": report["stages"]["slim"]["macs"],
        "baseline_top1": report["stages"]["baseline"]["top1"],
    }
