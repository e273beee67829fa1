"""From the original to the small INT8 file: `python -m benchmarks.pruning.showcase`.

Exports a network's baseline, a slimmed form of it and, where one is named, the baseline continued
for the same epochs; each as float32, the slimmed one as INT8 too, to ONNX and TFLite, with the
product's own calibration images. All files of a format answer the same test images in turns
(see `files.evaluate_in_turns`), so that their times can be compared.

One row of results/pruning/showcase.jsonl is one slimmed network; finished ones are skipped. The
files stay in WORK/files/RUN.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from benchmarks.pruning import results
from benchmarks.pruning.files import (
    TURN_IMAGES,
    Evaluation,
    evaluate_in_turns,
    export,
    network_folder,
    with_test_images,
)
from benchmarks.pruning.page.file_tables import showcase_table
from benchmarks.pruning.setting import (
    NETWORKS,
    Setting,
    add_arguments,
    network_of,
    open_setting,
    say,
)
from benchmarks.pruning.statistics import paired_difference
from compress_export.task import Task
from compressor.errors import InputError
from compressor.saved import load_model, read_description

FORMATS = ("onnx", "tflite")


@dataclass(frozen=True)
class Showcase:
    """What one row shows.

    Attributes:
        network: key of `NETWORKS`, whose baseline is the original.
        slim: run of the slimmed network.
        continued: run of the continued baseline, None to leave it out.
        images: how many test images; None is all of them.
        threads: of each operator in the runtimes.
    """

    network: str
    slim: str
    continued: str | None
    images: int | None
    threads: int


def main() -> None:
    """Measure the slimmed network unless that was done before; print its table."""
    arguments = _parser().parse_args()
    setting = open_setting(arguments)
    show = Showcase(
        arguments.network,
        arguments.slim,
        arguments.continued,
        arguments.images,
        arguments.threads or 1,
    )
    path = setting.results / "showcase.jsonl"
    try:
        if results.finished(path, asdict(show)):
            say(f"{show.slim}: finished before")
        else:
            results.append(path, asdict(show) | measure(show, setting))
    except InputError as error:
        raise SystemExit(f"error: {error}") from None
    row = next(r for r in results.rows(path) if asdict(show).items() <= r.items())
    print(showcase_table(row))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--network", choices=list(NETWORKS), required=True)
    parser.add_argument("--slim", metavar="RUN", required=True, help="folder in WORK/networks")
    parser.add_argument("--continued", metavar="RUN", help="the continued baseline's folder there")
    parser.add_argument("--images", type=int, help="test images for a trial; all otherwise")
    add_arguments(parser)
    return parser


def measure(show: Showcase, setting: Setting, formats: tuple[str, ...] = FORMATS) -> dict[str, Any]:
    """Export the networks, evaluate all files and return what a row holds beside its key.

    `load_average` is the machine's of the last minute before the files were timed.

    Raises:
        InputError: a network is missing or isn't a form of the original's.
    """
    folders = {"slim": _checked(show.slim, show, setting)}
    if show.continued is not None:
        folders["continued"] = _checked(show.continued, show, setting)
    networks = {"original": load_model(setting.baseline(show.network))}
    networks |= {role: load_model(folders[role]) for role in sorted(folders)}
    task = with_test_images(setting.task(show.network), show.images)
    exported = _export(networks, task, setting.work / "files" / show.slim, formats)
    labels = task.data.test.labels
    load_average = os.getloadavg()[0]
    files: list[dict[str, Any]] = []
    for format in formats:
        say(f"{show.slim}: {format} files on {len(labels)} test images")
        evaluations = evaluate_in_turns(
            list(exported.values()), format, task.data.test, show.threads
        )
        files += compared(evaluations, labels)
    return {
        "parameters": {role: _parameters(network) for role, network in networks.items()},
        "test_images": len(labels),
        "turn_images": TURN_IMAGES,
        "load_average": load_average,
        "files": files,
    }


def _checked(run: str, show: Showcase, setting: Setting) -> Path:
    folder = network_folder(setting, run)
    found = network_of(run, read_description(folder).architecture)
    if found != show.network:
        raise InputError(f"run '{run}' holds a {found}; --network {show.network} was asked for")
    return folder


def _export(
    networks: dict[str, nn.Module], task: Task, folder: Path, formats: tuple[str, ...]
) -> dict[str, Path]:
    """Export each network into a folder that is called after its role."""
    return {
        role: export(
            task,
            network,
            "slim" if role == "slim" else "baseline",
            folder / role,
            formats,
            ("float32", "int8") if role == "slim" else ("float32",),
        )
        for role, network in networks.items()
    }


def compared(evaluations: Sequence[Evaluation], labels: NDArray[np.int64]) -> list[dict[str, Any]]:
    """Return the figures of one format's files beside those of the first, the float original.

    `difference_points` is top-1 minus the original's in percentage points, with the 95 % interval
    of a bootstrap over the images; the factors say how many times smaller or faster a file is.
    """
    original = evaluations[0]
    found = []
    for evaluation in evaluations:
        difference = paired_difference({0: evaluation.right(labels)}, {0: original.right(labels)})
        found.append(
            {
                "role": evaluation.manifest.folder.name,
                **evaluation.figures(labels),
                "difference_points": difference.mean,
                "difference_low": difference.low,
                "difference_high": difference.high,
                "size_factor": original.file.size_bytes / evaluation.file.size_bytes,
                "eval_factor": original.eval_seconds / evaluation.eval_seconds,
                "runtime_factor": original.runtime_seconds / evaluation.runtime_seconds,
            }
        )
    return found


def _parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


if __name__ == "__main__":
    main()
