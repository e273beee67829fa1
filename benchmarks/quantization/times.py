"""Time the files of finished runs of `modes` again, on a machine that does nothing else.

    python -m benchmarks.quantization.times --work WORK

Accuracy is the same whatever else a machine does; milliseconds are not. All files of a network and
format are timed in one run as before, and their rows go to results/quantization/times.jsonl. The
page takes the newest times of each file. `modes` left the files in WORK/quantization.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from benchmarks.pruning import results
from benchmarks.pruning.setting import say
from benchmarks.quantization import modes
from benchmarks.quantization.peers import NAMES
from benchmarks.quantization.setting import FOLDER
from compressor.errors import InputError
from runtime_bench import measure_folders

FILE = "times.jsonl"
TIMES = (
    "latency_p50_ms", "latency_p90_ms", "float_latency_p50_ms", "float_latency_p90_ms",
    "load_average",
)  # fmt: skip
_KEYS = (*(field.name for field in fields(modes.Run)), "mode")

Row = Mapping[str, Any]


def main() -> None:
    """Time the files of all runs on all images, or of the networks that are named."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.quantization.times",
        description=(__doc__ or "").splitlines()[0],
    )
    parser.add_argument("--networks", nargs="+", help="names of their folders; all otherwise")
    parser.add_argument("--work", type=Path, required=True, help="where `modes` left the files")
    parser.add_argument("--results", type=Path, default=FOLDER, help="files of finished runs")
    arguments = parser.parse_args()
    found: dict[modes.Run, list[str]] = {}
    for row in results.rows(arguments.results / modes.FILE):
        if arguments.networks is None or row["network"] in arguments.networks:
            found.setdefault(_run(row), []).append(row["mode"])
    try:
        for run, names in found.items():
            for timed in measure(run, names, arguments.work / "quantization" / run.name):
                results.append(arguments.results / FILE, timed)
    except InputError as error:
        raise SystemExit(f"error: {error}") from None


def measure(run: modes.Run, names: Iterable[str], folder: Path) -> list[dict[str, Any]]:
    """Time all files of a run, in turns; return the rows of some modes.

    Raises:
        InputError: the files are gone, or a runtime is missing.
    """
    folders = [folder / "ours", *(folder / name for name in NAMES if (folder / name).is_dir())]
    if not folders[0].is_dir():
        raise InputError(f"{folder}: no files there; `benchmarks.quantization.modes` makes them")
    say(f"{run.name}: timing")
    load_average = os.getloadavg()[0]
    measured = measure_folders(folders, samples=None, threads=run.threads, runs=run.runs)
    by_mode = {modes.mode_of(item): item for item in measured}
    timed = []
    for name in names:
        if name not in by_mode:
            raise InputError(f"{folder}: its file of {name} is gone; make it anew")
        figures = modes.figures(by_mode[name], by_mode[modes.FLOAT])
        row = asdict(run) | {"mode": name, "load_average": load_average} | figures
        timed.append({key: row[key] for key in (*_KEYS, *TIMES)})
    return timed


def with_newest(rows: Iterable[Row], timed: Iterable[Row]) -> list[Row]:
    """Return rows of `modes` with the newest times of each file."""
    newest = {_key(row): {key: row[key] for key in TIMES} for row in timed}
    return [{**row, **newest.get(_key(row), {})} for row in rows]


def _run(row: Row) -> modes.Run:
    return modes.Run(**{field.name: row[field.name] for field in fields(modes.Run)})


def _key(row: Row) -> tuple[Any, ...]:
    return tuple(row[key] for key in _KEYS)


if __name__ == "__main__":
    main()
