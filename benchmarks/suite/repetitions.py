"""Tests that pass at one time and fail at another.

python -m benchmarks.suite.repetitions [--count 20] [--workers 2] [PART ...]

Every repetition of a part has an order of tests, a seed of hypothesis and a seed of Python's hashes
of its own. One row each in `results/repetitions.jsonl`; finished ones are not repeated.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from benchmarks.pruning.results import append, finished
from benchmarks.suite.reach import summary
from benchmarks.suite.running import PARTS, RESULTS, read_cases, run_part

RESULT = RESULTS / "repetitions.jsonl"


def repeat(part: str, seed: int, workers: int) -> None:
    """Run a part once in the order that `seed` gives, and append its row."""
    order = ("--random-order-bucket=module", f"--random-order-seed={seed}")
    with tempfile.TemporaryDirectory() as folder:
        junit = Path(folder) / "junit.xml"
        run_part(
            part,
            junit,
            workers=workers,
            options=(*order, f"--hypothesis-seed={seed}"),
            PYTHONHASHSEED=str(seed),
        )
        append(RESULT, {"seed": seed, "workers": workers, **summary(part, read_cases(junit))})


def main() -> None:
    """Run what has no row yet, all parts of one seed before the next seed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", default=PARTS, help="tests/compressor")
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    for seed in range(1, options.count + 1):
        for part in options.parts:
            if not finished(RESULT, {"seed": seed, "part": part}):
                repeat(part, seed, options.workers)


if __name__ == "__main__":
    main()
