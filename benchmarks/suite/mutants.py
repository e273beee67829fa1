"""The share of small changes to the channel graph and the verdict that their tests notice.

python -m benchmarks.suite.mutants [--graph N] [--seed 0] [--workers 2] [--seconds S]

mutmut (`[tool.mutmut]` in pyproject.toml) makes the mutants and runs, for each, the tests that
reach the changed function. All mutants of the verdict are judged, and N of the channel graph's,
drawn by the seed; without --graph all of them. mutmut keeps what it found in `mutants/`, so that an
interrupted run goes on, with a larger N too. `results/mutants.json` has shares and survivors.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.pruning.results import environment
from benchmarks.suite.running import RESULTS, ROOT

RESULT = RESULTS / "mutants.json"
VERDICT, GRAPH = "runtime_bench.verdict", "compressor.graph"
SURVIVED, NO_TESTS = 0, (5, 33)
"""pytest's exit code where every test passed; mutmut's codes where no test reaches a function."""

Codes = dict[str, int | None]


def read_codes(root: Path) -> Codes:
    """Read every mutant's exit code from mutmut's folder; None where it wasn't judged yet."""
    codes: Codes = {}
    for file in sorted((root / "mutants").rglob("*.py.meta")):
        codes |= json.loads(file.read_text(encoding="utf-8"))["exit_code_by_key"]
    return codes


def draw(names: Iterable[str], count: int | None, seed: int) -> list[str]:
    """Draw `count` names; a larger count draws the same ones and more."""
    ordered = sorted(names)
    random.Random(seed).shuffle(ordered)
    return ordered[:count]


def verdict_of(code: int) -> str:
    """What became of a judged mutant."""
    if code == SURVIVED:
        return "survived"
    return "untested" if code in NO_TESTS else "killed"


def by_module(codes: Mapping[str, int | None]) -> list[dict[str, Any]]:
    """Count mutants, and what became of them, by module."""
    modules: dict[str, Counter[str]] = {}
    for name, code in sorted(codes.items()):
        counts = modules.setdefault(name.rpartition(".x")[0], Counter())
        counts["mutants"] += 1
        if code is not None:
            counts[verdict_of(code)] += 1
    fields = ("mutants", "killed", "survived", "untested")
    return [
        {"module": module, **{field: counts[field] for field in fields}}
        for module, counts in modules.items()
    ]


def judge(names: list[str], workers: int, seconds: float | None) -> None:
    """Have mutmut judge these mutants; one name may be a pattern."""
    command = [sys.executable, "-m", "mutmut", "run", "--max-children", str(workers), *names]
    with subprocess.Popen(command, cwd=ROOT, start_new_session=True) as process:
        try:
            process.wait(seconds)
        finally:  # its workers too, also where this script is interrupted
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def main() -> None:
    """Judge what was drawn and not judged, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--graph", type=int, help="mutants of the channel graph; default: all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seconds", type=float, help="limit of mutmut's run")
    options = parser.parse_args()
    if not read_codes(ROOT):
        judge([f"{VERDICT}*"], options.workers, None)
    codes = read_codes(ROOT)
    drawn = [name for name in codes if name.startswith(VERDICT)]
    graph = [name for name in codes if name.startswith(GRAPH)]
    drawn += draw(graph, options.graph, options.seed)
    if waiting := [name for name in drawn if codes[name] is None]:
        judge(waiting, options.workers, options.seconds)
    codes = read_codes(ROOT)
    unseen = [name for name, code in codes.items() if code in (SURVIVED, *NO_TESTS)]
    result = {
        "environment": environment(),
        "seed": options.seed,
        "modules": by_module(codes),
        "survivors": sorted(unseen),
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
