"""How long from the start of runtime-bench to the first answer of a network?

    python benchmarks/bench_start.py [DIR] [--runs 9]

DIR is a finished result; its bundle is taken, with ResNet-20 for the published table. Times, from
the start of a process until the bench says that a file is loaded and has answered (its untimed runs
are over): `bench.pyz`, and the console script, for each file alone. The processor time is that of
the process and of those that it starts. Writes results/start.json and results/start.md.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from runtime_bench import host_facts, read_manifest
from runtime_bench.archive import ARCHIVE_NAME, write_archive

RESULTS = Path(__file__).parent / "results"
LIMIT_S = 1.0
_SAID = "loaded and warmed up"


@dataclass(frozen=True)
class Row:
    """One way to start, on one file.

    Attributes:
        median_s, best_s: seconds from the start until the first answers.
        processor_s: median of the processor time until the bench was stopped right after.
    """

    start: str
    file: str
    median_s: float
    best_s: float
    processor_s: float


def only_file(bundle: Path, name: str, folder: Path) -> Path:
    """Return a copy of the bundle that holds one of its files, and the bench as it is now."""
    manifest = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
    manifest["files"] = [entry for entry in manifest["files"] if entry["name"] == name]
    manifest["codebook"] = None
    folder.mkdir()
    for entry in manifest["files"]:
        shutil.copy(bundle / entry["path"], folder)
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    write_archive(folder / ARCHIVE_NAME)
    return folder


def first_answer(command: list[str]) -> tuple[float, float]:
    """Return wall and processor seconds until the first answers; the bench is then ended."""
    spent = _processor_s()
    start = time.perf_counter()
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        if not any(_SAID in line for line in process.stderr):
            sys.exit(f"{' '.join(command)} ended without an answer")
        wall_s = time.perf_counter() - start
        process.terminate()
    return wall_s, _processor_s() - spent


def _processor_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure(bundle: Path, runs: int) -> list[Row]:
    """Time every file of the bundle in every way."""
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for file in read_manifest(bundle).files:
            folder = only_file(bundle, file.name, Path(scratch) / file.name)
            script = str(Path(sys.executable).with_name("runtime-bench"))
            starts = {
                ARCHIVE_NAME: [sys.executable, str(folder / ARCHIVE_NAME)],
                "runtime-bench": [script, str(folder)],
            }
            for name, command in starts.items():
                first_answer(command)  # fills the disk's cache
                times = [first_answer(command) for _ in range(runs)]
                walls, spent = zip(*times, strict=True)
                middle = statistics.median
                rows.append(Row(name, file.name, middle(walls), min(walls), middle(spent)))
    return rows


def markdown(rows: list[Row], model: str) -> str:
    """The rows as a table."""
    lines = [
        f"From the start to the first answers of {model}, seconds.",
        "",
        "| start | file | median | best | processor time |",
        "|---|---|---:|---:|---:|",
        *(
            f"| {row.start} | {row.file} | {row.median_s:.2f} | {row.best_s:.2f} | "
            f"{row.processor_s:.2f} |"
            for row in rows
        ),
    ]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Measure, write the results, and return 1 where a median is above the limit."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = Path("compress-export-out/jetson")
    parser.add_argument("folder", type=Path, nargs="?", default=default, metavar="DIR")
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--results", type=Path, default=RESULTS, help="where to write")
    given = parser.parse_args()
    bundle = given.folder / "bundle"
    rows = measure(bundle, given.runs)
    result = {
        "model": read_manifest(bundle).model,
        "machine": platform.platform(),
        "host": host_facts().to_json(),
        "runs": given.runs,
        "limit_s": LIMIT_S,
        "rows": [asdict(row) for row in rows],
    }
    given.results.mkdir(parents=True, exist_ok=True)
    (given.results / "start.json").write_text(json.dumps(result, indent=2) + "\n")
    table = markdown(rows, result["model"])
    (given.results / "start.md").write_text(table)
    print(table)
    return int(max(row.median_s for row in rows) > LIMIT_S)


if __name__ == "__main__":
    sys.exit(main())
