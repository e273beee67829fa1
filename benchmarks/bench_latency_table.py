"""How well a table of layers predicts whole networks, and where the staircase of widths lies.

    python -m benchmarks.bench_latency_table --seed 0

Whole networks, unpruned and at random widths, are exported and timed; their latency stands beside
the sum over the table, raw and after one factor that makes the table agree with the unpruned
network. One layer is timed at every width for the picture. Written to results/latency-table.json,
.md and .png. Wants a quiet machine and takes some ten minutes; layers are measured anew.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.untrained_files import export_untrained
from boards import Board, load_board
from boards.parts import Precision
from compress_export.latency_tables import latency_tables, layer_latencies
from compressor.cost import Limits, NetworkCosts, as_tensor
from compressor.decore.projection import project
from compressor.graph import ChannelGraph, Keep, channel_graph
from compressor.models import build_model
from compressor.slim import slim
from exporters.layer_files import LayerSpec
from runtime_bench import host_facts, runtime_name, time_small_files

RESULTS = Path(__file__).parent / "results"
NETWORKS = ("resnet20", "resnet56", "resnet18")
SHARES = (1.0, 0.6, 0.35, 0.2)
FORMATS = ("onnx", "tflite")
PRECISIONS: tuple[Precision, ...] = ("float32", "int8")
SIDE = 32
CLASSES = 10
STAIR_INPUTS, STAIR_SIDE = 64, 16
STAIR_WIDTHS = range(1, 65)
ROUNDS = 30


@dataclass(frozen=True)
class Row:
    """One network in one format.

    Attributes:
        macs_share: of the unpruned network's.
        measured_ms: of the whole file.
        table_ms: sum over the table.
        predicted_ms: the same, times what the unpruned network needs over its own sum.
    """

    network: str
    macs_share: float
    format: str
    precision: str
    measured_ms: float
    table_ms: float
    predicted_ms: float

    @property
    def error(self) -> float:
        """Return the relative error of the prediction."""
        return self.predicted_ms / self.measured_ms - 1


@dataclass(frozen=True)
class Subject:
    """A network at some widths."""

    network: str
    graph: ChannelGraph
    keep: Keep
    slimmed: nn.Module

    @property
    def macs_share(self) -> float:
        costs = NetworkCosts(self.graph)
        return float(
            costs.macs(as_tensor(self.keep)) / costs.macs(as_tensor(self.graph.all_kept()))
        )


def main(arguments: list[str] | None = None) -> int:
    """Measure, print and write."""
    options = _options(arguments)
    torch.set_num_threads(1)
    board = load_board(options.board)
    started = time.perf_counter()
    stairs = staircase(board, options.threads)
    rows: list[Row] = []
    tables_s = 0.0
    for name in options.networks:
        found, seconds = network_rows(name, board, options)
        rows += found
        tables_s += seconds
    content = {
        "schema_version": 1,
        "facts": {
            "command": f"python -m benchmarks.bench_latency_table --seed {options.seed}",
            "seed": options.seed,
            "threads": options.threads,
            "runtimes": [runtime_name(file_format) for file_format in FORMATS],
            "Python": platform.python_version(),
            "torch": torch.__version__,
            "machine": f"{host_facts().model}, {os.cpu_count()} cores",
            "date": time.strftime("%Y-%m-%d"),
            "tables_seconds": round(tables_s, 1),
            "seconds": round(time.perf_counter() - started, 1),
        },
        "rows": [asdict(row) for row in rows],
        "staircase": {
            "inputs": STAIR_INPUTS,
            "side": STAIR_SIDE,
            "widths": list(STAIR_WIDTHS),
            "milliseconds": stairs,
        },
    }
    options.results.mkdir(parents=True, exist_ok=True)
    text = markdown(content, rows)
    (options.results / "latency-table.json").write_text(json.dumps(content, indent=1) + "\n")
    (options.results / "latency-table.md").write_text(text)
    draw(stairs, options.results / "latency-table.png")
    print(text)
    return 0


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--board", default="x86-64")
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--results", type=Path, default=RESULTS)
    return parser.parse_args(arguments)


def staircase(board: Board, threads: int) -> dict[str, list[float]]:
    """Time one convolution at every number of outputs: "onnx int8" -> milliseconds."""
    side = (STAIR_SIDE, STAIR_SIDE)
    specs = [
        LayerSpec("conv", STAIR_INPUTS, width, (3, 3), (1, 1), (1, 1), (1, 1), side)
        for width in STAIR_WIDTHS
    ]
    return {
        f"{file_format} {precision}": layer_latencies(
            specs, board, file_format, precision=precision, threads=threads
        )
        for file_format in FORMATS
        for precision in PRECISIONS
    }


def network_rows(name: str, board: Board, options: argparse.Namespace) -> tuple[list[Row], float]:
    """Compare one network at all shares; also return the seconds that its tables took."""
    rows, seconds = [], 0.0
    for precision in PRECISIONS:
        with tempfile.TemporaryDirectory() as scratch:
            subjects = list(_subjects(name, board.channel_steps[precision], options.seed))
            folders = [Path(scratch) / str(number) for number in range(len(subjects))]
            for subject, folder in zip(subjects, folders, strict=True):
                export_untrained(subject.slimmed, folder, board, FORMATS, [precision], side=SIDE)
            began = time.perf_counter()
            tables = latency_tables(
                subjects[0].graph,
                board,
                FORMATS,
                precision=precision,
                threads=options.threads,
                say=lambda line: print(f"{name}: {line}", file=sys.stderr),
                cache_folder=Path(scratch) / "cache",
            )
            seconds += time.perf_counter() - began
            costs = NetworkCosts(subjects[0].graph, latency=tables)
            sums = [costs.latencies_ms(as_tensor(s.keep)).tolist() for s in subjects]
            for place, file_format in enumerate(FORMATS):
                paths = [folder / f"baseline.{precision}.{file_format}" for folder in folders]
                measured = time_small_files(
                    paths, file_format, threads=options.threads, rounds=ROUNDS
                )
                factor = measured[0] / sums[0][place]
                rows += [
                    Row(
                        name,
                        subject.macs_share,
                        file_format,
                        precision,
                        ms,
                        table[place],
                        table[place] * factor,
                    )
                    for subject, ms, table in zip(subjects, measured, sums, strict=True)
                ]
    return rows, seconds


def _subjects(name: str, channel_step: int, seed: int) -> Iterator[Subject]:
    """Yield the network unpruned, and with random channels and widths on a step."""
    torch.manual_seed(seed)
    model = build_model(name, CLASSES).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):  # constants of empty branches must not be zero
            nn.init.normal_(module.bias, 0, 0.2)
            assert module.running_mean is not None
            nn.init.normal_(module.running_mean, 0, 0.2)
    graph = channel_graph(model, torch.zeros(1, 3, SIDE, SIDE))
    costs = NetworkCosts(graph)
    macs = float(costs.macs(as_tensor(graph.all_kept())))
    for number, share in enumerate(SHARES):
        generator = np.random.default_rng((seed, number))
        ranking = generator.normal(size=graph.class_count)
        for group in graph.groups:
            ranking[group.classes] += generator.normal()
        limits = Limits(costs, {"macs": share * macs})
        keep = project(ranking, graph, limits, channel_step)
        yield Subject(name, graph, keep, slim(model, graph, keep))


def markdown(content: dict[str, Any], rows: list[Row]) -> str:
    """Return the table for the documents."""
    facts = content["facts"]
    lines = [
        "# Latency tables against whole networks",
        "",
        f"`{facts['command']}`; {facts['machine']}, {facts['threads']} thread, "
        f"{' and '.join(facts['runtimes'])}, {facts['date']}. All tables took "
        f"{facts['tables_seconds']:.0f} s.",
        "",
        "`table` is the sum over the measured layers; `predicted` is that sum after the factor "
        "that makes the unpruned network right.",
        "",
        "| network | MACs | format | precision | measured ms | table ms | table / measured "
        "| predicted ms | error |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row.network} | {row.macs_share:.2f} | {row.format} | {row.precision} "
        f"| {row.measured_ms:.4f} | {row.table_ms:.4f} | {row.table_ms / row.measured_ms:.2f} "
        f"| {row.predicted_ms:.4f} | {100 * row.error:+.1f} % |"
        for row in rows
    ]
    lines += ["", "| format | precision | mean error | largest error |", "|---|---|---|---|"]
    for file_format in FORMATS:
        for precision in PRECISIONS:
            errors = [
                abs(row.error)
                for row in rows
                if (row.format, row.precision) == (file_format, precision) and row.macs_share < 1
            ]
            lines.append(
                f"| {file_format} | {precision} | {100 * np.mean(errors):.1f} % "
                f"| {100 * max(errors):.1f} % |"
            )
    lines += ["", "![latency against width](latency-table.png)", ""]
    return "\n".join(lines)


def draw(stairs: dict[str, list[float]], path: Path) -> None:
    """Draw the staircase of both runtimes side by side."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    titles = {"onnx": runtime_name("onnx"), "tflite": runtime_name("tflite")}
    figure, axes = pyplot.subplots(1, 2, figsize=(11, 4.2), sharey=True, layout="constrained")
    for axis, file_format in zip(axes, FORMATS, strict=True):
        for precision, colour in zip(PRECISIONS, ("tab:blue", "tab:orange"), strict=True):
            microseconds = [1000 * ms for ms in stairs[f"{file_format} {precision}"]]
            axis.plot(STAIR_WIDTHS, microseconds, ".-", color=colour, label=precision, markersize=4)
        axis.set_title(titles[file_format])
        axis.set_xlabel("output channels")
        axis.set_xticks(range(0, 65, 8))
        axis.grid(alpha=0.3)
        axis.legend()
    axes[0].set_ylim(bottom=0)  # of both, once all is drawn
    axes[0].set_ylabel("latency in µs")
    figure.suptitle(
        f"3x3 convolution, {STAIR_INPUTS} input channels, {STAIR_SIDE}x{STAIR_SIDE} pixels, "
        "one thread"
    )
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    sys.exit(main())
