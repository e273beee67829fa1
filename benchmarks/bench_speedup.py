"""What fewer MACs are worth in milliseconds: the realized speed-up of a pruned ResNet-18.

    python -m benchmarks.bench_speedup

The network is cut by equal shares of every layer, in several channel steps; networks that were
slimmed otherwise can be given as folders of `save_model`. Weights don't matter to time, so they
stay random. All files of one runtime are timed in turns in one process; speed-ups are taken round
by round. A second table shows where the time is: every layer alone, at the widths of each network.
Written to results/speedup.json and results/speedup.md. Wants a quiet machine.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from benchmarks.speedup_tables import WHOLE, Row, markdown, speedups, wanted
from benchmarks.untrained_files import export_untrained
from boards import Board, load_board
from compress_export.latency_tables import layer_latencies, layer_spec
from compressor.cost import Limits, NetworkCosts, as_tensor
from compressor.decore.projection import project
from compressor.errors import InputError
from compressor.graph import ChannelGraph, channel_graph
from compressor.latency import timed_layers
from compressor.methods.one_shot import rank_within_groups
from compressor.models import build_model
from compressor.saved import load_model, read_description
from compressor.slim import slim
from runtime_bench import host_facts, runtime_name, time_side_by_side

RESULTS = Path(__file__).parent / "results"
PRECISIONS = ("float32", "int8")
SIDE, CLASSES = 32, 10


@dataclass(frozen=True)
class Subject:
    """A network to be timed.

    Attributes:
        name: of how it was pruned.
        model: in eval mode.
        graph: its own channel graph.
    """

    name: str
    model: nn.Module
    graph: ChannelGraph

    @classmethod
    def of(cls, name: str, model: nn.Module) -> Subject:
        return cls(name, model, channel_graph(model.eval(), torch.zeros(1, 3, SIDE, SIDE)))

    @property
    def macs(self) -> float:
        return float(NetworkCosts(self.graph).macs(as_tensor(self.graph.all_kept())))

    @property
    def widths(self) -> dict[str, int]:
        """Outputs of every layer."""
        return {layer.module: len(layer.out_classes) for layer in self.graph.layers}


def main(arguments: list[str] | None = None) -> int:
    """Measure, print and write."""
    options = _options(arguments)
    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    started, board = time.perf_counter(), load_board(options.board)
    subjects = chosen(options)
    with tempfile.TemporaryDirectory() as scratch:
        folders = [Path(scratch) / str(number) for number in range(len(subjects))]
        for subject, folder in zip(subjects, folders, strict=True):
            print(f"exporting {subject.name}", file=sys.stderr)
            export_untrained(subject.model, folder, board, options.formats, PRECISIONS, side=SIDE)
        rows = [row for f in options.formats for row in timed(subjects, folders, f, options)]
    parts = {
        f"{file_format} {precision}": {
            subject.name: part_milliseconds(subject, board, file_format, precision, options.threads)
            for subject in subjects
        }
        for file_format in options.formats
        for precision in PRECISIONS
    }
    content = {
        "schema_version": 1,
        "facts": {
            "command": command(sys.argv[1:] if arguments is None else arguments),
            "network": options.network,
            "threads": options.threads,
            "rounds": options.rounds,
            "runtimes": [runtime_name(file_format) for file_format in options.formats],
            "Python": platform.python_version(),
            "torch": torch.__version__,
            "machine": f"{host_facts().model}, {os.cpu_count()} cores",
            "load_average": round(os.getloadavg()[0], 2),
            "date": time.strftime("%Y-%m-%d"),
            "seconds": round(time.perf_counter() - started, 1),
        },
        "rows": [asdict(row) for row in rows],
        "part_macs": {subject.name: part_macs(subject) for subject in subjects},
        "part_milliseconds": parts,
        "widths": {subject.name: subject.widths for subject in subjects},
    }
    options.results.mkdir(parents=True, exist_ok=True)
    (options.results / "speedup.json").write_text(json.dumps(content, indent=1) + "\n")
    text = markdown(content)
    (options.results / "speedup.md").write_text(text)
    print(text)
    return 0


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--network", default="resnet18")
    parser.add_argument("--network-folder", nargs="+", type=Path, default=[], help="slimmed ones")
    parser.add_argument("--factors", nargs="+", type=float, default=[2, 4], help="fewer MACs")
    parser.add_argument("--channel-step", nargs="+", type=int, default=[8, 16, 32])
    parser.add_argument("--board", default="x86-64", help="whose export rules count")
    parser.add_argument("--formats", nargs="+", default=["onnx", "tflite"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--burst-ms", type=float, default=40.0)
    parser.add_argument("--results", type=Path, default=RESULTS)
    return parser.parse_args(arguments)


def command(words: Sequence[str]) -> str:
    """Return the command line without the folders of the machine that measured."""
    return " ".join(["python -m benchmarks.bench_speedup", *(Path(word).name for word in words)])


def chosen(options: argparse.Namespace) -> list[Subject]:
    """Return the unpruned network, its uniform cuts of different widths, then the given ones.

    Raises:
        InputError: a folder holds another architecture.
    """
    whole = Subject.of(WHOLE, build_model(options.network, CLASSES))
    subjects = [whole]
    for factor in options.factors:
        for step in options.channel_step:
            cut = Subject.of(f"{factor:g}x, steps of {step}", uniformly_cut(whole, factor, step))
            if all(cut.widths != other.widths for other in subjects):
                subjects.append(cut)
    for folder in options.network_folder:
        architecture = read_description(folder).architecture
        if architecture != options.network:
            raise InputError(
                f"--network-folder {folder} holds a {architecture}, --network is {options.network}"
            )
        subjects.append(Subject.of(folder.name, load_model(folder)))
    return subjects


def uniformly_cut(whole: Subject, factor: float, channel_step: int) -> nn.Module:
    """Return the network with at most 1/factor of its MACs, every layer equally narrowed."""
    graph = whole.graph
    ranking = rank_within_groups(np.zeros(graph.class_count), graph)
    limits = Limits(NetworkCosts(graph), {"macs": whole.macs / factor})
    return slim(whole.model, graph, project(ranking, graph, limits, channel_step))


def timed(
    subjects: Sequence[Subject],
    folders: Sequence[Path],
    file_format: str,
    options: argparse.Namespace,
) -> Iterator[Row]:
    """Time all files of one format side by side; the first subject is the unpruned one."""
    paths = [
        folder / f"baseline.{precision}.{file_format}"
        for precision in PRECISIONS
        for folder in folders
    ]
    bursts = time_side_by_side(
        paths,
        file_format,
        threads=options.threads,
        rounds=options.rounds,
        burst_ms=options.burst_ms,
    )
    for place, precision in enumerate(PRECISIONS):
        first = place * len(subjects)
        for index, subject in enumerate(subjects):
            own = bursts[first + index]
            low, speedup, high = speedups(bursts[first], own)
            factor = subjects[0].macs / subject.macs
            yield Row(
                network=subject.name,
                macs_factor=factor,
                format=file_format,
                precision=precision,
                size_bytes=paths[first + index].stat().st_size,
                latency_p50_ms=float(np.median([burst.median_ms for burst in own])),
                latency_p90_ms=float(np.median([burst.p90_ms for burst in own])),
                speedup=speedup,
                speedup_quartiles=(low, high),
                fraction=speedup / factor,
                wanted=wanted(file_format, precision, factor),
            )


def part_macs(subject: Subject) -> dict[str, float]:
    """Return the MACs of each part of a network: its outermost modules."""
    found: dict[str, float] = {}
    macs = NetworkCosts(subject.graph).layer_macs(as_tensor(subject.graph.all_kept()))
    for layer, value in zip(subject.graph.layers, macs.tolist(), strict=True):
        part = layer.module.partition(".")[0]
        found[part] = found.get(part, 0.0) + value
    return found


def part_milliseconds(
    subject: Subject, board: Board, file_format: str, precision: str, threads: int
) -> dict[str, float]:
    """Return the time of each part's layers, and of what lies between layers, timed alone."""
    layers = timed_layers(subject.graph, channel_step=1)
    specs = {
        layer.key: layer_spec(
            layer.key.geometry, layer.key.inputs[-1], layer.key.outputs[-1], layer.key
        )
        for layer in layers
    }
    distinct = list(dict.fromkeys(specs.values()))
    times = layer_latencies(distinct, board, file_format, precision=precision, threads=threads)
    of_spec = dict(zip(distinct, times, strict=True))
    found: dict[str, float] = {}
    for layer in layers:
        between = layer.key.geometry.kind == "elementwise"
        part = "between layers" if between else layer.name.partition(".")[0]
        found[part] = found.get(part, 0.0) + of_spec[specs[layer.key]] * layer.calls
    return found


if __name__ == "__main__":
    sys.exit(main())
