"""Statements and branches that the tests reach, by package, and the slowest tests.

python -m benchmarks.suite.reach --work WORK [--workers 2] [PART ...]

Every part of the suite is run once, unless WORK has its result; processes that tests start count
too. `results/suite.json` is written from the parts that are there.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.pruning.results import environment
from benchmarks.suite.running import PARTS, RESULTS, ROOT, Case, read_cases, run_part

RESULT = RESULTS / "suite.json"
FIGURES = ("num_statements", "covered_lines", "num_branches", "covered_branches")
SLOWEST = 20


def by_package(files: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Add up the files of `coverage json` by their first folder."""
    packages: dict[str, dict[str, Any]] = {}
    for path, file in sorted(files.items()):
        name = Path(path).parts[0]
        sums = packages.setdefault(name, {"package": name, **dict.fromkeys(FIGURES, 0)})
        for figure in FIGURES:
            sums[figure] += file["summary"][figure]
    return list(packages.values())


def summary(part: str, cases: list[Case]) -> dict[str, Any]:
    """What a part's tests came to."""
    return {
        "part": part,
        "tests": len(cases),
        "skipped": sum(case.outcome == "skipped" for case in cases),
        "failed": [case.name for case in cases if case.outcome == "failed"],
        "seconds": round(sum(case.seconds for case in cases), 1),
    }


def read_coverage(work: Path) -> Mapping[str, Any]:
    """Combine the data of all parts; by file, as `coverage json` gives them."""
    data, out = work / "all.coverage", work / "coverage.json"
    parts = [str(path) for path in sorted(work.glob("*/data*"))]
    coverage = [sys.executable, "-m", "coverage"]
    combine = ["combine", "--keep", "--quiet", f"--data-file={data}", *parts]
    subprocess.run([*coverage, *combine], cwd=ROOT, check=True)
    report = ["json", "--quiet", f"--data-file={data}", "-o", str(out)]
    subprocess.run([*coverage, *report], cwd=ROOT, check=True)
    return json.loads(out.read_text(encoding="utf-8"))["files"]


def main() -> None:
    """Run what has no result yet, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", default=PARTS, help="tests/compressor")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    work = options.work.absolute()
    for part in options.parts:
        folder = work / Path(part).stem
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "junit.xml").exists():
            run_part(
                part,
                folder / "junit.xml",
                workers=options.workers,
                options=("--cov", "--cov-report="),
                COVERAGE_FILE=str(folder / "data"),
            )
    done = {part: work / Path(part).stem / "junit.xml" for part in PARTS}
    cases = {part: read_cases(file) for part, file in done.items() if file.exists()}
    slowest = sorted(sum(cases.values(), []), key=lambda case: -case.seconds)[:SLOWEST]
    result = {
        "environment": environment(),
        "cores": os.cpu_count(),
        "load_average": round(os.getloadavg()[0], 1),
        "parts": [summary(part, found) for part, found in cases.items()],
        "packages": by_package(read_coverage(work)),
        "slowest": [{"test": case.name, "seconds": case.seconds} for case in slowest],
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
