"""`python -m benchmarks.zoo`: take every network through the whole tool, one process each.

A crash, a limit or an error is one line of its row. Finished networks are passed over, so an
interrupted run goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.pruning import results
from benchmarks.zoo.child import run_limited
from benchmarks.zoo.models import Entry, chosen

RESULTS = results.FOLDER.parent / "zoo.jsonl"
SIZE = 64
FORMATS = ("onnx", "tflite")
TIME_LIMIT_S = 3600.0
MEMORY_LIMIT_MIB = 12 * 1024
PEER = "torch-pruning"
OURS = "compress-export"


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    made = argparse.ArgumentParser(prog="python -m benchmarks.zoo", description=__doc__)
    made.add_argument("--models", nargs="+", help="names; all of the zoo if not given")
    made.add_argument("--results", type=Path, default=RESULTS, help="file of rows to add to")
    made.add_argument("--size", type=int, default=SIZE, help="side of the images where it's free")
    made.add_argument("--formats", nargs="*", choices=FORMATS, default=list(FORMATS))
    made.add_argument("--peers", action="store_true", help="Torch-Pruning instead, rows of its own")
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--time-limit", type=float, default=TIME_LIMIT_S, help="seconds per network")
    made.add_argument("--memory-limit", type=int, default=MEMORY_LIMIT_MIB, help="MiB per network")
    made.add_argument("--retry", action="store_true", help="take the failed ones again")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Add the missing rows; 0 whatever the networks did: the table says what failed."""
    options = parser().parse_args(arguments)
    for entry in chosen(options.models):
        key = {
            "model": entry.name,
            "tool": PEER if options.peers else OURS,
            "size": entry.size or options.size,
            "seed": options.seed,
        }
        done = newest(options.results, key)
        if done is not None and not (options.retry and done["errors"]):
            continue
        row = measure(entry, key, options)
        results.append(options.results, row)
        print(line(row), flush=True)
    return 0


def newest(path: Path, key: dict[str, Any]) -> dict[str, Any] | None:
    """The last row with these values."""
    found = [row for row in results.rows(path) if all(row.get(k) == v for k, v in key.items())]
    return found[-1] if found else None


def measure(entry: Entry, key: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """One row: what the worker answered, and what stopped it."""
    request = {**key, "formats": options.formats, "peer": options.peers}
    start = time.monotonic()
    outcome = run_limited(
        [sys.executable, "-m", "benchmarks.zoo.worker", json.dumps(request)],
        time_limit_s=options.time_limit,
        memory_limit_mib=options.memory_limit,
    )
    row: dict[str, Any] = {
        **key,
        "source": entry.source,
        "family": entry.family,
        "convolutional": entry.convolutional,
        "errors": {},
    }
    for text in outcome.lines:
        answer = json.loads(text)
        row.update(answer.get("fields", {}))
        if "error" in answer:
            row["errors"][answer["stage"]] = answer["error"]
    if outcome.failure is not None:
        row["errors"]["process"] = outcome.failure
    row["seconds"] = round(time.monotonic() - start, 1)
    row["peak_bytes"] = outcome.peak_bytes
    row["load_average"] = os.getloadavg()[0]
    return row


def line(row: dict[str, Any]) -> str:
    """What is said of a row while the command runs."""
    said = [f"{row['model']:28s} {row['seconds']:7.1f} s"]
    for name in ("error_half", "error"):
        if name in row:
            said.append(f"error {row[name]:.1e}")
    for format in FORMATS:
        if format in row:
            said.append(f"{format} {row[format]['agreement']:.2f}/{row[format]['correlation']:.2f}")
    said += [f"{stage}: {error}" for stage, error in row["errors"].items()]
    return "  ".join(said)
