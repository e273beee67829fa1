"""Does bench.pyz itself run where boards are, with the same answers?

    python benchmarks/bench_pyz.py DIR --python NAME=PATH ... [--emulated NAME] [--runs 5]

DIR is a finished result; where its bundle has no packed images (`--bundle-samples`), 200 of the
test images in DIR.run are packed. Runs `bench.pyz --samples` of the bundle with every Python given,
each of which has numpy and the runtimes to be tried, and writes a row per file to results/pyz.json
and results/pyz.md. NAME=PATH:RUNTIME takes one runtime of several. Rows of an emulated Python say
so: its answers count, its times don't.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from compress_export.bundling import SAMPLES, pack_samples
from runtime_bench import read_manifest
from runtime_bench.archive import ARCHIVE_NAME, write_archive

RESULTS = Path(__file__).parent / "results"
_IMAGES = 200
_VERSIONS = (
    "import json, platform, numpy; "
    "print(json.dumps([platform.python_version(), platform.machine(), numpy.__version__]))"
)


@dataclass(frozen=True)
class Row:
    """One file in one environment.

    Attributes:
        arch: of the Python, e.g. "aarch64".
        emulated: on another machine's processor; times say nothing then.
        exit_code: of bench.pyz.
        top1, agreement: fractions, None where no runtime for the file is there.
        latency_p50_ms: None where emulated.
    """

    environment: str
    file: str
    python: str
    arch: str
    numpy: str
    runtime: str | None
    emulated: bool
    exit_code: int
    samples: int | None
    top1: float | None
    agreement: float | None
    latency_p50_ms: float | None


def measure(bundle: Path, name: str, python: str, *, emulated: bool, runs: int) -> list[Row]:
    """Run bench.pyz of a bundle in one environment."""
    path, _, runtime = python.partition(":")
    versions = subprocess.run([path, "-c", _VERSIONS], capture_output=True, text=True, check=True)
    about = json.loads(versions.stdout.splitlines()[-1])
    with tempfile.TemporaryDirectory() as scratch:
        figures = Path(scratch) / "figures.json"
        command = [path, str(bundle / ARCHIVE_NAME), "--samples", "--runs", str(runs)]
        command += ["--json", str(figures), *(["--runtime", runtime] if runtime else [])]
        done = subprocess.run(command, stdout=subprocess.DEVNULL, check=False)
        found = json.loads(figures.read_text(encoding="utf-8"))
    return [
        _row(item, name, about, emulated=emulated, exit_code=done.returncode)
        for item in found["measurements"]
    ]


def _row(
    item: dict[str, Any], name: str, about: list[str], *, emulated: bool, exit_code: int
) -> Row:
    python, arch, numpy = about
    timed = item["latency_ms"] is not None and not emulated
    return Row(
        environment=name,
        file=item["name"],
        python=python,
        arch=arch,
        numpy=numpy,
        runtime=item["runtime"],
        emulated=emulated,
        exit_code=exit_code,
        samples=item["samples"],
        top1=item["top1"],
        agreement=item["agreement"],
        latency_p50_ms=item["latency_ms"]["p50"] if timed else None,
    )


def markdown(rows: list[Row], model: str) -> str:
    """The rows as a table."""
    lines = [
        f"bench.pyz on the INT8 files of {model}, with the images packed in the bundle.",
        "",
        "| file | Python | machine | numpy | runtime | images | top-1 % | as torch % |",
        "|---|---|---|---|---|---:|---:|---:|",
        *(
            f"| {row.file} | {row.python} | {row.arch}{' (emulated)' if row.emulated else ''} | "
            f"{row.numpy} | {row.runtime} | {row.samples} | {_percent(row.top1)} | "
            f"{_percent(row.agreement)} |"
            for row in rows
            if row.runtime is not None
        ),
    ]
    return "\n".join(lines) + "\n"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share * 100:.2f}"


def main() -> int:
    """Measure in every environment and write the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = Path("compress-export-out/jetson")
    parser.add_argument("folder", type=Path, nargs="?", default=default, metavar="DIR")
    parser.add_argument("--python", action="append", metavar="NAME=PATH[:RUNTIME]")
    parser.add_argument("--emulated", action="append", default=[], metavar="NAME")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--results", type=Path, default=RESULTS, help="where to write")
    given = parser.parse_args()
    pythons = dict(text.split("=", 1) for text in given.python or [f"current={sys.executable}"])
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        bundle = Path(scratch) / "bundle"
        shutil.copytree(given.folder / "bundle", bundle)
        (bundle / "SHA256SUMS").unlink(missing_ok=True)  # the bench is the present one
        write_archive(bundle / ARCHIVE_NAME)
        if not (bundle / SAMPLES).is_file():
            every = given.folder.with_name(given.folder.name + ".run") / SAMPLES
            pack_samples(every, bundle / SAMPLES, _IMAGES, seed=0)
        for name, python in pythons.items():
            emulated = name in given.emulated
            rows += measure(bundle, name, python, emulated=emulated, runs=given.runs)
        model = read_manifest(bundle).model
    result = {
        "model": model,
        "machine": platform.platform(),
        "rows": [asdict(row) for row in rows],
    }
    given.results.mkdir(parents=True, exist_ok=True)
    (given.results / "pyz.json").write_text(json.dumps(result, indent=2) + "\n")
    (given.results / "pyz.md").write_text(markdown(rows, model))
    print(markdown(rows, model))
    return 0


if __name__ == "__main__":
    sys.exit(main())
