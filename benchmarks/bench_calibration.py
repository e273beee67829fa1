"""Time and memory that calibration takes at 100 and at 5,000 samples, for each method and format.

    python -m benchmarks.bench_calibration

ResNet-20 at 32 pixels with random weights, random images in batches of 32. Every case is a process
of its own: growth is its largest resident memory less what it held after the first 8 samples.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.untrained_files import export_untrained
from boards import load_board
from boards.parts import CalibrationMethod
from exporters import Calibration
from exporters.clipping import Grid
from exporters.onnx_calibration import onnx_ranges
from exporters.tflite_calibration import tflite_ranges
from runtime_bench import host_facts
from runtime_bench.memory import peak_rss_bytes, rss_bytes

RESULTS = Path(__file__).parent / "results"
ONE_AND_TWO_PASSES = ("minmax", "mse")  # over the samples; the others take as much as these
SIDE, BATCH, WARM_UP = 32, 32, 8
MIB = 1 << 20


def main() -> None:
    """Measure all cases, or, with --case, one of them in this process."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--samples", type=int, nargs="+", default=[100, 5000])
    parser.add_argument("--methods", nargs="+", default=ONE_AND_TWO_PASSES)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--case", nargs=3, help="FILE METHOD SAMPLES: one case, printed as JSON")
    arguments = parser.parse_args()
    if arguments.case:
        path, method, samples = arguments.case
        print(json.dumps(measure(Path(path), method, int(samples))))
        return
    with tempfile.TemporaryDirectory() as folder:
        files = float_files(Path(folder))
        cases = [(f, m, s) for f in files for m in arguments.methods for s in arguments.samples]
        rows = [run_case(*case) for case in cases]
    found = {"host": host_facts().to_json(), "batch": BATCH, "side": SIDE, "rows": rows}
    print(table(found))
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "calibration.json").write_text(json.dumps(found, indent=1) + "\n")
    (arguments.out / "calibration.md").write_text(table(found))


def float_files(folder: Path) -> list[Path]:
    """Float files of ResNet-20, ONNX first."""
    from compressor.models import build_model

    board, formats = load_board("x86-64"), ("onnx", "tflite")
    export_untrained(build_model("resnet20", 10), folder, board, formats, ("float32",), side=SIDE)
    return [folder / f"baseline.float32.{name}" for name in formats]


def run_case(path: Path, method: str, samples: int) -> dict[str, Any]:
    """Measure one case in a process of its own."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.bench_calibration",
        "--case",
        str(path),
        method,
        str(samples),
    ]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(row, flush=True)
    return row


def measure(path: Path, method: CalibrationMethod, samples: int) -> dict[str, Any]:
    """Seconds, and MiB of resident memory that the samples after the first few added."""
    calibrate(path, "mse", WARM_UP)
    before, started = rss_bytes() or 0, time.perf_counter()
    tensors = calibrate(path, method, samples)
    seconds = time.perf_counter() - started
    peak = peak_rss_bytes() or 0
    return {
        "format": path.suffix[1:],
        "method": method,
        "samples": samples,
        "tensors": tensors,
        "seconds": round(seconds, 2),
        "growth_mib": round((peak - before) / MIB, 1),
        "peak_rss_mib": round(peak / MIB, 1),
    }


def calibrate(path: Path, method: CalibrationMethod, samples: int) -> int:
    """Find all ranges over random images; returns how many there are."""

    def images() -> Iterator[np.ndarray]:
        random = np.random.default_rng(0)
        for start in range(0, samples, BATCH):
            shape = (min(BATCH, samples - start), 3, SIDE, SIDE)
            yield random.standard_normal(shape, np.float32)

    shape, stream = (3, SIDE, SIDE), Calibration(images)
    if path.suffix == ".tflite":
        return len(tflite_ranges(path, stream, shape, method, Grid()))
    import onnx

    return len(onnx_ranges(onnx.load(str(path)), stream, shape, method, Grid()))


def table(found: dict[str, Any]) -> str:
    """The results as Markdown."""
    lines = [
        "# Calibration: time and memory",
        "",
        "`python -m benchmarks.bench_calibration`, ResNet-20 at 32 pixels, random weights and "
        f"images, batches of {found['batch']}, on {found['host']['model']}. Memory is what a "
        "process held at its peak beyond what it held after 8 samples. Other work ran at the same "
        "time: seconds are upper bounds.",
        "",
        "| format | method | samples | seconds | growth MiB | peak MiB |",
        "|---|---|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {row['format']} | {row['method']} | {row['samples']} | {row['seconds']:.1f} | "
        f"{row['growth_mib']:.1f} | {row['peak_rss_mib']:.0f} |"
        for row in found["rows"]
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
