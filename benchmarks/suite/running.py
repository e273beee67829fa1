"""Run parts of the test suite in a process of its own, and read what JUnit's file says of them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"
PARTS = tuple(
    path.relative_to(ROOT).as_posix()
    for path in sorted((ROOT / "tests").iterdir())
    if path.name.startswith("test_") or (path.is_dir() and any(path.glob("test_*.py")))
)
"""Folders of tests, and files that lie beside them."""


@dataclass(frozen=True)
class Case:
    """One test of a finished run; `outcome` is "passed", "failed" or "skipped"."""

    name: str
    outcome: str
    seconds: float


def run_part(
    part: str, junit: Path, *, workers: int, options: Sequence[str] = (), **variables: str
) -> None:
    """Run a part of the suite; `junit` is written whole at its end, also where tests fail.

    Args:
        variables: added to the environment.

    Raises:
        RuntimeError: pytest ended without a result: it was interrupted, or found no test.
    """
    command = [sys.executable, "-m", "pytest", part, "-q", "-p", "no:cacheprovider", *options]
    command += ["-n", str(workers), "--dist", "loadfile"] if workers > 1 else []
    command.append(f"--junitxml={junit}")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **variables}
    code = subprocess.run(command, cwd=ROOT, env=environment).returncode
    if code not in (0, 1):
        raise RuntimeError(f"pytest {part} ended with code {code}")


def read_cases(junit: Path) -> list[Case]:
    """Read the tests of a finished run."""
    found = []
    for element in ElementTree.parse(junit).iter("testcase"):
        tags: Mapping[str, str] = {"failure": "failed", "error": "failed", "skipped": "skipped"}
        outcome = next((tags[child.tag] for child in element if child.tag in tags), "passed")
        name = f"{element.get('classname')}.{element.get('name')}"
        found.append(Case(name, outcome, float(element.get("time", 0))))
    return found
