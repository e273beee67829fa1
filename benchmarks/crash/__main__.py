"""Stop small jobs in every way; every run is a line of results/crash.jsonl.

    python -m benchmarks.crash kills [--kills 200] [--jobs training files ...]
    python -m benchmarks.crash shortages [--cases loss 'disk files' ...]
    python -m benchmarks.crash repeats [--runs 5] [--job whole]

`kills` goes on where it was stopped itself, until there are so many kills in the file. The full
disk is a tmpfs, which only root may mount. Tables: python -m benchmarks.crash.page.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.pruning.results import append, rows

RESULT = Path(__file__).parents[1] / "results" / "crash.jsonl"
SHARES = {"training": 6, "files": 1, "onnx files": 2, "whole": 1}
"""Runs of each job in ten: the export of TFLite takes ten times as long as all else."""


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=("kills", "shortages", "repeats"))
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--jobs", nargs="+", default=list(SHARES), choices=list(SHARES))
    parser.add_argument("--cases", nargs="+")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--job", default="whole", choices=list(SHARES))
    parser.add_argument("--work", type=Path, default=Path("crash-work").resolve())
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    if options.what == "repeats":
        repeats(options.job, options.runs, options.work, options.out)
        return
    from benchmarks.crash.victim import prepare

    prepare()
    if options.what == "kills":
        kills(options.kills, options.jobs, options.work, options.out)
    else:
        shortages(options.cases, options.work, options.out)


def kills(wanted: int, jobs: list[str], work: Path, path: Path) -> None:
    """Stop runs of the jobs in turns until there are so many kills."""
    from benchmarks.crash.kills import stopped_run

    done = [row for row in rows(path) if row["kind"] == "kill"]
    count = len(done)
    for job, number in _turns(jobs):
        if count >= wanted:
            return
        if any((row["job"], row["run"]) == (job, number) for row in done):
            continue
        for row in stopped_run(job, work, number, say):
            append(path, {"kind": "kill", **row})
            count += 1


def shortages(wanted: list[str] | None, work: Path, path: Path) -> None:
    """Do what is not in the results yet."""
    from benchmarks.crash.shortages import cases

    done = {row.get("name") for row in rows(path)}
    for name, case in cases().items():
        if name in done or not name.startswith(tuple(wanted or ("",))):
            continue
        row = {"kind": "shortage", "name": name, **case(work)}
        say(json.dumps(row))
        append(path, row)


def repeats(job: str, runs: int, work: Path, path: Path) -> None:
    """Run a job several times, each in a fresh Python with its own hash seed, and compare."""
    from benchmarks.crash.jobs import compared, words

    first = work / f"repeat {job} 1"
    for number in range(1, runs + 1):
        folder = work / f"repeat {job} {number}"
        if not (folder / "out").is_dir():
            shutil.rmtree(folder, ignore_errors=True)
            command = [sys.executable, "-m", "compress_export", *words(job, folder / "out")]
            paths = os.pathsep.join(sys.path)
            subprocess.run(
                command, env={**os.environ, "PYTHONPATH": paths}, check=True, capture_output=True
            )
        if number > 1 and not _compared_before(path, job, number):
            found = compared(first / "out", folder / "out")
            say(f"{job}, run {number}: {found or 'identical to run 1'}")
            row: dict[str, Any] = {"kind": "repeat", "job": job, "run": number}
            append(path, {**row, "differences": found[:5]})


def say(line: str) -> None:
    """Print at once."""
    print(line, flush=True)


def _compared_before(path: Path, job: str, number: int) -> bool:
    wanted = ("repeat", job, number)
    return any((row["kind"], row["job"], row.get("run")) == wanted for row in rows(path))


def _turns(jobs: list[str]) -> Iterator[tuple[str, int]]:
    """Yield jobs and the numbers of their runs, each job by its share."""
    for turn in itertools.count():
        for job in jobs:
            for number in range(SHARES[job]):
                yield job, turn * SHARES[job] + number


if __name__ == "__main__":
    main()
