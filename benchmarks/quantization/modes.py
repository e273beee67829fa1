"""Every format and precision of a saved network, and other tools' INT8 files beside them.

    python -m benchmarks.quantization.modes WORK/baselines/resnet20 --data CIFAR --work WORK \
        [--nncf-python PATH] [--size 224]

The project's own bench measures all files of a format in one run, each in a process of its own, in
rounds that go through all of them: top-1 and agreement with torch on the test images, latency,
memory. What is finished is not measured again; the float file always is, since times count as
ratios to it. With another `--size` than 32 only the time is measured.

Each row of results/quantization/modes.jsonl is one file. The files stay in WORK/quantization.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.pruning import results
from benchmarks.pruning.setting import say
from benchmarks.quantization.peers import Peer, described, peers
from benchmarks.quantization.setting import (
    SIZE,
    add_arguments,
    newer_board,
    open_task,
    saved_options,
    with_calibration,
)
from boards.parts import FILE_PRECISIONS
from compress_export.exporting import Exports
from compress_export.task import Task
from compressor.errors import InputError
from compressor.training import predictions
from exporters import ExportError
from exporters.support import why_not
from runtime_bench import Measurement, measure_folders

FILE = "modes.jsonl"
FORMATS = ("onnx", "tflite")
FLOAT = "float32"
BOARD = newer_board()
_FILES_FOR_TIMES_ALONE = 64
"""Images of each part that files are made with where only their time is wanted."""


@dataclass(frozen=True)
class Run:
    """All files of one network and format, and what tells them from others.

    Attributes:
        network: name of the saved network's folder.
        format: "onnx" or "tflite".
        size: pixels of the images.
        seed: of the choice of calibration samples.
        threads: of each operator.
        images: how many of each part were used; None is all of them.
        runs: timed runs of each file.
    """

    network: str
    format: str
    size: int
    seed: int
    threads: int
    images: int | None
    runs: int

    @property
    def name(self) -> str:
        """For people, and for the folder of the files."""
        few = "" if self.images is None else f"-{self.images}images"
        return f"{self.network}-{self.format}-{self.size}px-s{self.seed}{few}"


def main() -> None:
    """Measure what isn't there yet."""
    arguments = _parser().parse_args()
    others = peers(arguments.nncf_python)
    if arguments.nncf_python is None:
        say("notice: nncf is left out; --nncf-python names an interpreter that has it")
    try:
        for folder in arguments.networks:
            for seed in arguments.seeds:
                for format in arguments.formats:
                    run = Run(
                        folder.name, format, arguments.size, seed,
                        arguments.threads, arguments.images, arguments.runs,
                    )  # fmt: skip
                    _finish(run, folder, arguments, others)
    except (InputError, ExportError) as error:
        raise SystemExit(f"error: {error}") from None


def _finish(run: Run, folder: Path, arguments: argparse.Namespace, others: dict[str, Peer]) -> None:
    path = arguments.results / FILE
    missing = [
        mode
        for mode in modes(run.format, others)
        if not results.finished(path, asdict(run) | {"mode": mode})
    ]
    if not missing:
        say(f"{run.name}: finished before")
        return
    options = saved_options(folder, arguments.data, "cpu", run.size)
    images = run.images if run.size == SIZE else _FILES_FOR_TIMES_ALONE
    task = with_calibration(open_task(options, images, run.threads), run.seed)
    for row in measure(run, missing, task, others, arguments.work / "quantization" / run.name):
        results.append(path, row)


def modes(format: str, others: dict[str, Peer]) -> list[str]:
    """Return the precisions that the board has in a format, and the other tools."""
    ours = [name for name in FILE_PRECISIONS if why_not(BOARD, format, name) is None]
    return [*ours, *(name for name, peer in others.items() if peer.format == format)]


def measure(
    run: Run, wanted: Sequence[str], task: Task, others: dict[str, Peer], folder: Path
) -> list[dict[str, Any]]:
    """Write the wanted files and the float one, measure them in one run, return their rows."""
    started = time.monotonic()
    versions = write_files(run, wanted, task, others, folder)
    samples, torch_top1 = None, None
    if run.size == SIZE:
        say(f"{run.name}: torch on {len(task.data.test)} test images")
        samples, torch_top1 = write_samples(task, folder / "samples.npz")
    load_average = os.getloadavg()[0]
    measured = measure_folders(
        [folder / "ours", *(folder / name for name in versions)],
        samples=samples,
        threads=run.threads,
        runs=run.runs,
        progress=lambda line: None if line.startswith("latency") else say(line),
    )
    by_mode = {mode_of(m): m for m in measured}
    common = {
        "torch_top1": torch_top1,
        "test_images": None if samples is None else len(task.data.test),
        "calibration_images": len(task.calibration),
        "load_average": load_average,
        "seconds": round(time.monotonic() - started),
    }
    rows = [
        asdict(run)
        | {"mode": mode, "tool": versions.get(mode)}
        | figures(by_mode[mode], by_mode[FLOAT])
        | common
        for mode in wanted
    ]
    for row in rows:
        say(_line(row))
    return rows


def write_files(
    run: Run, wanted: Sequence[str], task: Task, others: dict[str, Peer], folder: Path
) -> dict[str, str]:
    """Write our files to FOLDER/ours and each other tool's to FOLDER/NAME, with manifests.

    Returns:
        name -> version of the other tools that were wanted.

    Raises:
        ExportError, InputError: a tool failed.
    """
    exports = Exports(task, BOARD, (run.format,), BOARD.target_precision, say)
    ours = [name for name in FILE_PRECISIONS if name in wanted or name == FLOAT]
    exports.finish_reference(
        folder / "ours", exports.write(task.model, "baseline", folder / "ours", ours)
    )
    float_path = folder / "ours" / f"baseline.{FLOAT}.{run.format}"
    versions = {}
    for name in [name for name in wanted if name in others]:
        say(f"{run.name}: {name}")
        path = folder / name / f"{name}.{run.format}"
        path.parent.mkdir(parents=True, exist_ok=True)
        calibration = np.concatenate(list(task.calibration_stream()))
        versions[name] = others[name].write(float_path, calibration, path)
        exports.finish_reference(path.parent, [described(path, run.format, run.network)])
    return versions


def write_samples(task: Task, path: Path) -> tuple[Path, float]:
    """Write the test images as the bench reads them, with torch's answers; return its top-1, too.

    The test images are read here, once for all files of a run.
    """
    test = task.data.test
    answers = predictions(task.model, task.test_batches(), task.compute)
    predicted = np.concatenate([found.numpy() for found, _ in answers])
    images = test.read(np.arange(len(test))).transpose(0, 2, 3, 1)
    np.savez(path, images=images, labels=test.labels, predictions_baseline=predicted)
    return path, float((predicted == test.labels).mean())


def mode_of(measurement: Measurement) -> str:
    """Return a precision of ours, or the other tool's name, which its folder has."""
    folder = Path(measurement.folder).name
    return measurement.precision if folder == "ours" else folder


def figures(found: Measurement, reference: Measurement) -> dict[str, Any]:
    """Return what a row keeps of a file, and the latency of the float file of the same run."""
    latency, float_latency = found.latency_ms, reference.latency_ms
    if latency is None or float_latency is None:
        raise InputError(f"{found.name}: {found.note or reference.note}")
    return {
        "size_bytes": found.size_bytes,
        "float_size_bytes": reference.size_bytes,
        "top1": found.top1,
        "float_top1": reference.top1,
        "agreement": found.agreement,
        "latency_p50_ms": latency["p50"],
        "latency_p90_ms": latency["p90"],
        "float_latency_p50_ms": float_latency["p50"],
        "float_latency_p90_ms": float_latency["p90"],
        "peak_rss_bytes": found.peak_rss_bytes,
        "peak_rss_no_arena_bytes": found.peak_rss_no_arena_bytes,
        "activation_bytes": found.activation_bytes,
        "runtime": found.runtime,
    }


def _line(row: dict[str, Any]) -> str:
    top1 = "" if row["top1"] is None else f", top-1 {100 * row['top1']:.2f} %"
    ratio = row["float_latency_p50_ms"] / row["latency_p50_ms"]
    return (
        f"{row['network']} {row['format']} {row['mode']}: {row['size_bytes']} bytes{top1}, "
        f"{row['latency_p50_ms']:.3f} ms, {ratio:.2f} times as fast as float"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.quantization.modes",
        description=(__doc__ or "").splitlines()[0],
    )
    parser.add_argument("networks", nargs="+", type=Path, help="folders of saved networks")
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=list(FORMATS))
    parser.add_argument("--size", type=int, default=SIZE, help="another one is for times alone")
    parser.add_argument("--runs", type=int, default=400, help="timed runs of each file")
    parser.add_argument("--nncf-python", type=Path, metavar="PATH", help="interpreter with NNCF")
    add_arguments(parser)
    return parser


if __name__ == "__main__":
    main()
