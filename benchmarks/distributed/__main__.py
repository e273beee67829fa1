"""Measure what docs/distributed.md says; every run is a line of results/distributed.jsonl.

    python -m benchmarks.distributed equality
    python -m benchmarks.distributed throughput
    python -m benchmarks.distributed kills
    python -m benchmarks.distributed sweep       # needs the extra `sweep`

The page: python -m benchmarks.distributed.page.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from benchmarks.distributed import processes
from benchmarks.distributed.sweep import killed_sweep
from benchmarks.pruning.results import append

RESULT = Path(__file__).parents[1] / "results" / "distributed.jsonl"
MEASUREMENTS = {
    "equality": processes.equality,
    "throughput": processes.throughput,
    "kills": processes.kills,
    "sweep": killed_sweep,
}


def main() -> None:
    """Run one measurement."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=list(MEASUREMENTS))
    parser.add_argument("--work", type=Path, default=Path("distributed-work"))
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    work = options.work.resolve() / options.what
    work.mkdir(parents=True, exist_ok=True)
    for row in MEASUREMENTS[options.what](work):
        print(json.dumps(row), flush=True)
        append(options.out, row)


if __name__ == "__main__":
    main()
