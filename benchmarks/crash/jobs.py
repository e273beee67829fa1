"""The small jobs that are stopped, and how they end undisturbed."""

from __future__ import annotations

import json
import os
import shutil
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.crash.network import NETWORK
from benchmarks.crash.victim import Ended, run
from compress_export.provenance import source_sha256
from compress_export.reproducing import figure_differences, file_differences

_ALL = (
    f"--board jetson --model {NETWORK} --data digits --input-size 8 --batch-size 256 --threads 1 "
    "--calibration-samples 64 --latency-runs 5 --seed 3"
)
_TRAINING = (
    "--target-macs 0.4 --baseline-epochs 3 --search-epochs 3 --finetune-epochs 3 "
    "--codebook 16 --codebook-epochs 2"
)

JOBS = {
    "training": f"{_ALL} {_TRAINING} --stages prune",
    "files": f"{_ALL} --baseline-epochs 0 --stages quantize,bench",
    "onnx files": f"{_ALL} --baseline-epochs 0 --stages quantize,bench --formats onnx",
    "whole": f"{_ALL} {_TRAINING}",
}
"""Name -> options. The first three drive some of the stages alone."""


@dataclass(frozen=True)
class Reference:
    """An undisturbed run.

    Attributes:
        out: its DIR.
        stages: seconds spent in each stage.
        operations: on files.
    """

    out: Path
    stages: dict[str, float]
    operations: int


def words(job: str, out: Path, *more: str) -> list[str]:
    """Return the command line of a job."""
    return [*JOBS[job].split(), "--out", str(out), *more]


def reference(job: str, work: Path) -> Reference:
    """Run a job undisturbed, unless this version of the program has done so before."""
    folder = work / f"reference {job} {source_sha256()[:8]}"
    note = folder / "reference.json"
    if not note.is_file():
        shutil.rmtree(folder, ignore_errors=True)
        ended = run(words(job, folder / "out"), folder)
        if ended.code != 0:
            raise RuntimeError(f"{job}: undisturbed it ended with {ended.code}: {ended.complained}")
        found = Reference(folder / "out", ended.stages, ended.operations)
        note.write_text(json.dumps({**asdict(found), "out": str(found.out)}), encoding="utf-8")
    entries = json.loads(note.read_text(encoding="utf-8"))
    return Reference(**{**entries, "out": Path(entries["out"])})


def compared(expected: Path, out: Path) -> list[str]:
    """Return what of a result differs from the reference: files byte by byte, and figures."""
    reports = [_report(folder) for folder in (expected, out)]
    return [*file_differences(expected, out), *figure_differences(reports[0], reports[1])]


def lines(ended: Ended, work: Path) -> list[str]:
    """Return the lines of a process's standard error, without the places of this machine."""
    text = ended.complained.replace(f"{work}{os.sep}", "").replace(sys.prefix, "PYTHON")
    return text.splitlines()


def _report(folder: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    return report
