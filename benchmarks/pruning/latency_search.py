"""A latency budget against a MACs budget: `python -m benchmarks.pruning.latency_search`.

For every share and seed, side `macs` is the run of `compare` with that share of the MACs (done here
where it is missing). Its INT8 file is timed, and side `latency` searches under that many
milliseconds, with tables of the layers' latencies, as the product does: calibrated with the
unpruned file, then corrected with the chosen network's own file before fine-tuning. Both sides have
the same method, epochs and recipe. In the end both INT8 files are timed side by side, in turns, in
one process: the latencies are called the same where the latency side's is at most 2 % longer.

Each pair appends two rows to latency_search.jsonl. Finished pairs are skipped, an interrupted one
goes on from its last epoch, with the milliseconds that it began with.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from benchmarks.pruning import results
from benchmarks.pruning.compare import (
    CHANNEL_STEP,
    Run,
    do,
    drop_checkpoints,
    fresh,
    on_test_images,
    prune_and_recover,
)
from benchmarks.pruning.files import BOARD, evaluate_in_turns, export, network_folder
from benchmarks.pruning.setting import NETWORKS, Setting, add_arguments, open_setting, say
from benchmarks.pruning.variants import VARIANTS
from compress_export.corrections import meet
from compress_export.latency_tables import latency_tables
from compress_export.task import Task
from compressor.cost import Limits, NetworkCosts, as_tensor
from compressor.decore.projection import project
from compressor.graph import Keep, channel_graph
from compressor.methods.method import Choice, Method, PruneTask
from compressor.methods.registry import METHODS
from compressor.saved import load_model, save_model
from compressor.verify import probe_images
from runtime_bench import Burst, runtime_name, time_side_by_side

FORMATS = {"onnxruntime": "onnx", "litert": "tflite"}
SAME = 1.02
"""Latency over the other's up to which the two are called the same."""

THREADS = 1
ROUNDS, BURST_MS = 60, 10.0
WANTED, KEPT = "wanted.json", "kept.json"
"""What an interrupted run has measured already."""


@dataclass(frozen=True)
class Files:
    """Makes and times the INT8 files of one pair.

    Attributes:
        task: images for calibration.
        format: of the files.
        folder: where they lie.
    """

    task: Task
    format: str
    folder: Path

    def make(self, model: nn.Module, name: str) -> Path:
        """Export a network and return its file."""
        place = self.folder / name
        export(self.task, model, "slim", place, (self.format,), ["int8"])
        return place / f"slim.int8.{self.format}"

    def time(self, *paths: Path) -> list[list[Burst]]:
        """Time files in turns."""
        return time_side_by_side(
            paths, self.format, threads=THREADS, rounds=ROUNDS, burst_ms=BURST_MS
        )


@dataclass(frozen=True)
class Wanted:
    """What the latency side has to reach, measured once.

    Attributes:
        limit_ms: latency of the MACs side's file.
        unpruned_ms: of the unpruned network's.
    """

    limit_ms: float
    unpruned_ms: float


def main() -> None:
    """Do every pair that is missing."""
    arguments = _parser().parse_args()
    setting = open_setting(arguments)
    file_format = FORMATS[arguments.runtime]
    baseline = setting.task(arguments.network)
    searches = VARIANTS[arguments.method].searches
    for seed in arguments.seeds:
        for share in arguments.shares:
            run = Run(
                arguments.network, arguments.method, "macs", share, seed, arguments.epochs,
                arguments.search_epochs if searches else 0, arguments.learning_rate,
            )  # fmt: skip
            do_pair(run, baseline, setting, file_format)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--network", choices=list(NETWORKS), default="resnet20")
    parser.add_argument("--method", choices=list(METHODS), default="decore")
    parser.add_argument("--runtime", choices=list(FORMATS), default="onnxruntime")
    parser.add_argument("--shares", nargs="+", type=float, default=[0.25], help="of the MACs")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--search-epochs", type=int, default=6)
    parser.add_argument("--learning-rate", type=float, default=0.05)
    add_arguments(parser)
    return parser


def do_pair(by_macs: Run, baseline: Task, setting: Setting, file_format: str) -> None:
    """Do what is missing of one share and seed."""
    file = setting.results / "latency_search.jsonl"
    by_latency = replace(by_macs, cost=f"latency-{file_format}")
    if results.finished(file, asdict(by_latency)):
        say(f"{by_latency.name}: finished before")
        return
    runs = setting.results / "runs.jsonl"
    if not results.finished(runs, asdict(by_macs)):
        do(by_macs, VARIANTS[by_macs.variant], baseline, setting, runs, read_test=True)
    (macs_row,) = [r for r in results.rows(runs) if asdict(by_macs).items() <= r.items()][:1]
    files = Files(baseline, file_format, setting.work / "files" / by_latency.name)
    macs_file = files.make(load_model(network_folder(setting, by_macs.name)), "macs")
    latency_row, latency_file = search_latency(by_latency, baseline, setting, files, macs_file)
    for row in finished_rows(files, (macs_row, latency_row), (macs_file, latency_file)):
        results.append(file, row)
        say(
            f"{row['cost']}: {row['latency_ms']:.4f} ms, {row['latency_ratio']:.3f} of the MACs "
            f"side's; test {row['test_top1']:.4f}, INT8 {row['int8']['top1']:.4f}"
        )
    drop_checkpoints(by_latency, setting)
    for note in (_notes(by_latency, setting) / name for name in (WANTED, KEPT)):
        note.unlink(missing_ok=True)


def search_latency(
    run: Run, baseline: Task, setting: Setting, files: Files, macs_file: Path
) -> tuple[dict[str, Any], Path]:
    """Prune under the latency of a file; return the row so far, and the network's own file."""
    notes = _notes(run, setting)
    task = fresh(run, baseline, setting)
    graph = channel_graph(task.model, task.example())
    wanted = Wanted(**remembered(notes / WANTED, lambda: _wanted(files, task, macs_file)))
    say(f"{run.name}: {wanted.limit_ms:.4f} ms wanted, {wanted.unpruned_ms:.4f} ms unpruned")
    tables = latency_tables(
        graph,
        BOARD,
        (files.format,),
        precision="int8",
        threads=THREADS,
        say=say,
        cache_folder=setting.work / "latency",
    )
    costs = NetworkCosts(graph, latency=tables)
    costs = costs.calibrated(as_tensor(graph.all_kept()), [wanted.unpruned_ms])
    limits = Limits(costs, {"latency_ms": wanted.limit_ms})

    methods: Mapping[str, Method] = dict(METHODS.items())
    method = methods[run.variant]

    def prune(pruning: PruneTask) -> nn.Module:
        choice = method(pruning)
        figures = remembered(notes / KEPT, lambda: _met(choice, pruning, files, macs_file, wanted))
        keep = np.zeros(graph.class_count, dtype=np.bool_)
        keep[figures["kept"]] = True
        return choice.left.cut(keep, probe_images(pruning.images))[0]

    variant = replace(VARIANTS[run.variant], prune=prune)
    slimmed, row = prune_and_recover(run, variant, task, setting, graph, limits)
    row |= {**asdict(wanted), **on_test_images(task, slimmed)}
    save_model(slimmed.cpu(), task.architecture, 10, setting.work / "networks" / run.name)
    return row, files.make(slimmed, "latency")


def _notes(run: Run, setting: Setting) -> Path:
    return setting.work / "runs" / run.name


def remembered(note: Path, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return what was measured, by this run or by the interrupted one before it."""
    if not note.exists():
        note.parent.mkdir(parents=True, exist_ok=True)
        unfinished = note.with_suffix(".part")
        unfinished.write_text(json.dumps(measure()), encoding="utf-8")
        unfinished.replace(note)
    found: dict[str, Any] = json.loads(note.read_text(encoding="utf-8"))
    return found


def _wanted(files: Files, task: Task, macs_file: Path) -> dict[str, Any]:
    mine, unpruned = files.time(macs_file, files.make(task.model, "unpruned"))
    limit_ms = milliseconds(mine)
    return asdict(Wanted(limit_ms, limit_ms * ratios(unpruned, mine)[1]))


def _met(
    choice: Choice, task: PruneTask, files: Files, macs_file: Path, wanted: Wanted
) -> dict[str, Any]:
    """Choose, measure and choose again, until the file is as fast as the MACs side's."""
    images = probe_images(task.images)

    def choose(limits: Limits) -> Keep:
        return project(choice.ranking, task.graph, limits, CHANNEL_STEP)

    def correct(keep: Keep, limits: Limits) -> Limits:
        mine = files.make(choice.left.cut(keep, images)[0], "chosen")
        # By the ratio: the machine may be faster or slower now than when the limit was measured.
        ms = wanted.limit_ms * ratios(*files.time(mine, macs_file))[1]
        return Limits(limits.costs.calibrated(as_tensor(keep), [ms]), limits.limits)

    met = meet(choose, task.limits, correct, say)
    return {"kept": np.flatnonzero(met.keep).tolist(), "measurements": met.measurements}


def finished_rows(
    files: Files, rows: Sequence[dict[str, Any]], paths: Sequence[Path]
) -> list[dict[str, Any]]:
    """Add latencies, side by side, and the files' accuracy to the rows of both sides."""
    bursts = files.time(*paths)
    images = files.task.data.test
    folders = [path.parent for path in paths]
    answers = evaluate_in_turns(folders, files.format, images, THREADS)
    found = []
    for row, own, answer in zip(rows, bursts, answers, strict=True):
        low, ratio, high = ratios(own, bursts[0])
        figures = answer.figures(images.labels)
        found.append(
            row
            | {
                "runtime": runtime_name(files.format),
                "format": files.format,
                "latency_ms": milliseconds(own),
                "latency_p90_ms": float(np.median([burst.p90_ms for burst in own])),
                "latency_ratio": ratio,
                "latency_ratio_quartiles": [low, high],
                "same_latency": ratio <= SAME,
                "int8": {key: figures[key] for key in ("size_bytes", "top1", "right")},
            }
        )
    return found


def milliseconds(bursts: Sequence[Burst]) -> float:
    """Return a file's latency in its median round."""
    return float(np.median([burst.median_ms for burst in bursts]))


def ratios(own: Sequence[Burst], other: Sequence[Burst]) -> tuple[float, float, float]:
    """Return the quartiles of a file's latency over another's, round by round."""
    found = [a.median_ms / b.median_ms for a, b in zip(own, other, strict=True)]
    low, middle, high = np.percentile(found, [25, 50, 75]).tolist()
    return low, middle, high


if __name__ == "__main__":
    main()
