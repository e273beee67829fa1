"""Do the INT8 files also run in the runtimes that boards really have, with the same answers?

python benchmarks/bench_compat.py [DIR]

Runs the files of a finished DIR over its test images in the current runtimes and in

* tflite-runtime 2.14 with numpy 1, which knows nothing of ai-edge-litert,
* TensorFlow Lite Micro's interpreter,
* the oldest onnxruntime that any board's descriptor names,

each in an environment of its own: one that is given, or one that is made below .compat/ with pip.
Writes results/compat.json and results/compat.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from boards import load_board, shipped_boards
from runtime_bench import read_manifest
from runtime_bench.samples import open_samples

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
LIMIT_POINTS = 0.3


@dataclass(frozen=True)
class Row:
    """One file in one runtime.

    Attributes:
        top1, agreement: fractions; agreement is with the current runtime's answers.
        drop_points: top-1 lost against the current runtime, in percentage points.
    """

    file: str
    runtime: str
    python: str
    numpy: str
    samples: int
    top1: float
    drop_points: float
    agreement: float


@dataclass(frozen=True)
class Environment:
    """Where a file format is tried beside the current runtime.

    Attributes:
        option: name of the option that gives its Python.
        requirements: what pip installs where no Python is given.
    """

    option: str
    format: str
    requirements: tuple[str, ...]
    micro: bool = False


def environments() -> tuple[Environment, ...]:
    """The three environments of the table."""
    oldest = oldest_onnxruntime()
    return (
        Environment("tflite_runtime_python", "tflite", ("tflite-runtime==2.14.0", "numpy<2")),
        Environment("tflm_python", "tflite", ("--pre", "tflite-micro"), micro=True),
        Environment("old_onnxruntime_python", "onnx", (f"onnxruntime=={oldest}", "numpy<2")),
    )


def oldest_onnxruntime() -> str:
    """The lowest onnxruntime that a shipped board names, e.g. "1.15.0"."""
    versions = [
        runtime.min_version
        for name in shipped_boards()
        for runtime in load_board(name).runtimes
        if runtime.name == "onnxruntime"
    ]
    return min(versions, key=lambda version: [int(part) for part in version.split(".")])


def make_environment(folder: Path, requirements: tuple[str, ...]) -> Path:
    """Return the Python of a virtual environment that holds the requirements."""
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *requirements], check=True)
    return python


def ask(
    python: Path, bundle: Path, file: str, samples: Path, micro: bool
) -> tuple[dict[str, Any], np.ndarray]:
    """Return a runtime's description and its answers to all samples, int64 (N,)."""
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "answers.npy"
        script = ROOT / "benchmarks" / "compat_answers.py"
        command = [str(python), str(script), str(bundle), file, str(samples), str(out)]
        done = subprocess.run(
            [*command, "--micro"] if micro else command,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        return json.loads(done.stdout.splitlines()[-1]), np.load(out)


def compare(bundle: Path, samples: Path, pythons: dict[str, Path]) -> list[Row]:
    """Run every INT8 file in the current runtime and in its old ones."""
    labels = open_samples(samples).labels
    rows = []
    for file in read_manifest(bundle).files:
        if file.precision != "int8":
            continue
        about, current = ask(Path(sys.executable), bundle, file.name, samples, micro=False)
        rows.append(_row(file.name, about, current, current, labels))
        for environment in environments():
            if environment.format == file.format:
                python = pythons[environment.option]
                about, found = ask(python, bundle, file.name, samples, environment.micro)
                rows.append(_row(file.name, about, found, current, labels))
    return rows


def _row(
    file: str, about: dict[str, Any], found: np.ndarray, current: np.ndarray, labels: np.ndarray
) -> Row:
    top1, reference = float((found == labels).mean()), float((current == labels).mean())
    return Row(
        file=file,
        **about,
        samples=len(labels),
        top1=top1,
        drop_points=round((reference - top1) * 100, 6),
        agreement=float((found == current).mean()),
    )


def markdown(rows: list[Row], model: str, board: str) -> str:
    """The rows as a table."""
    lines = [
        f"INT8 files of {model} for {board}: the first row of each file is the current runtime.",
        "",
        "| file | runtime | numpy | images | top-1 % | points lost | agreement % |",
        "|---|---|---|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {row.file} | {row.runtime} | {row.numpy} | {row.samples} | {row.top1 * 100:.2f} | "
        f"{row.drop_points:+.2f} | {row.agreement * 100:.2f} |"
        for row in rows
    ]
    return "\n".join(lines) + "\n"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = Path("compress-export-out/jetson")
    parser.add_argument("folder", type=Path, nargs="?", default=default, metavar="DIR")
    parser.add_argument("--samples", type=Path, help="default: DIR.run/samples.npz")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where to write")
    parser.add_argument("--environments", type=Path, default=ROOT / ".compat")
    for environment in environments():
        option = "--" + environment.option.replace("_", "-")
        parser.add_argument(option, type=Path, metavar="PYTHON")
    return parser.parse_args()


def main() -> int:
    given = arguments()
    bundle = given.folder / "bundle"
    samples = given.samples or given.folder.with_name(given.folder.name + ".run") / "samples.npz"
    for path in (bundle / "manifest.json", samples):
        if not path.is_file():
            sys.exit(f"{path} is missing; run a job first (make demo), or name its DIR")
    pythons = {
        env.option: getattr(given, env.option)
        or make_environment(
            given.environments / env.option.removesuffix("_python"), env.requirements
        )
        for env in environments()
    }
    rows = compare(bundle, samples, pythons)
    manifest = read_manifest(bundle)
    table = markdown(rows, manifest.model, manifest.board.id)
    result = {
        "model": manifest.model,
        "board": manifest.board.id,
        "machine": platform.platform(),
        "limit_points": LIMIT_POINTS,
        "files": {file.name: file.sha256 for file in manifest.files},
        "rows": [asdict(row) for row in rows],
    }
    given.results.mkdir(parents=True, exist_ok=True)
    (given.results / "compat.json").write_text(json.dumps(result, indent=2) + "\n")
    (given.results / "compat.md").write_text(table)
    print(table)
    worst = max((row.drop_points for row in rows), key=abs)
    print(f"largest difference {worst:+.2f} points, allowed {LIMIT_POINTS}")
    return int(abs(worst) > LIMIT_POINTS)


if __name__ == "__main__":
    sys.exit(main())
