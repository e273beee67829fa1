"""`python -m benchmarks.fuzz`: so many inputs to every parser, in sessions with limits.

A session is one line of the results; a target that has its inputs is passed over, so an interrupted
run goes on. A finding ends a target's sessions: it lies in WORK/TARGET/findings, and when it is
mended the target begins again.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.fuzz.targets import TARGETS
from benchmarks.pruning import results
from benchmarks.zoo.child import run_limited

RESULTS = results.FOLDER.parent / "fuzz.jsonl"
MEMORY_LIMIT_MIB = 4096
SESSION_INPUTS = 5000
SESSION_SECONDS = 3600.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Fuzz what is missing; 1 where anything was found."""
    options = _parser().parse_args(arguments)
    found = 0
    for name in options.targets or TARGETS:
        rows = [row for row in results.rows(options.results) if row["target"] == name]
        done = sum(row["inputs"] for row in since_the_last_finding(rows))
        seed = len(rows) + 1
        while done < options.inputs:
            row = session(name, min(SESSION_INPUTS, options.inputs - done), seed, options)
            results.append(options.results, row)
            print(json.dumps(row), flush=True)
            if row["findings"]:
                found += 1
                break  # to be mended first
            done, seed = done + row["inputs"], seed + 1
    return int(found > 0)


def since_the_last_finding(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the sessions of one target that count: what was found before is mended."""
    last = max((n for n, row in enumerate(rows, 1) if row["findings"]), default=0)
    return list(rows[last:])


def session(name: str, inputs: int, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Run one session; return what it did."""
    folder = options.work / name
    folder.mkdir(parents=True, exist_ok=True)
    before = _names(options.work)
    tally = folder / "tally.json"
    tally.unlink(missing_ok=True)
    command = [sys.executable, "-m", "benchmarks.fuzz.session", name, "--inputs", str(inputs),
               "--seed", str(seed), "--work", str(options.work), "--tally", str(tally)]  # fmt: skip
    outcome = run_limited(command, time_limit_s=options.seconds, memory_limit_mib=MEMORY_LIMIT_MIB)
    told: dict[str, Any] = json.loads(tally.read_text()) if tally.is_file() else {}
    findings = dict(told.get("findings", {}))
    if outcome.failure is not None:
        findings[outcome.failure] = 1
        shutil.copytree(folder / "scratch", folder / "findings" / f"session-{seed}")
    for stray in _names(options.work) - before - {name}:
        findings[f"wrote {stray}"] = 1
    accepted, refused = told.get("accepted", 0), told.get("refused", 0)
    return {
        "target": name,
        "seed": seed,
        "inputs": accepted + refused + sum(findings.values()),
        "accepted": accepted,
        "refused": refused,
        "findings": findings,
        "slowest_cpu_s": round(told.get("slowest_s", 0.0), 3),
        "grown_mib": round(told.get("grown_bytes", 0) / 2**20, 1),
        "peak_rss_mib": round(outcome.peak_bytes / 2**20),
    }


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def _parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m benchmarks.fuzz", description=__doc__)
    made.add_argument("--targets", nargs="+", choices=list(TARGETS), help="all if not given")
    made.add_argument("--inputs", type=int, default=10_000, help="of each target, in all sessions")
    made.add_argument("--seconds", type=float, default=SESSION_SECONDS, help="of one session")
    made.add_argument("--work", type=Path, required=True, help="corpora, findings, scratch")
    made.add_argument("--results", type=Path, default=RESULTS, help="file of sessions to add to")
    return made


if __name__ == "__main__":
    sys.exit(main())
