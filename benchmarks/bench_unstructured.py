"""What single zeros in the weights are worth: no byte, no millisecond. Beside it, whole channels.

    python benchmarks/bench_unstructured.py

One network, untrained, since only bytes and latency are shown: as it is; with a share of its
weights set to zero, the smallest magnitudes of the whole network first (torch.nn.utils.prune); and
with the same share of its weights cut out as whole channels (method `uniform`). All are exported by
the same exporter and timed side by side in one run. Written to results/unstructured.json and
results/unstructured.md.
"""

from __future__ import annotations

import argparse
import copy
import gzip
import json
import os
import platform
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import nn
from torch.nn.utils import prune

from boards import load_board
from compress_export.exporting import Exports
from compress_export.options import JobOptions
from compress_export.task import Task, load_task
from compressor.checkpoint import Checkpoint
from compressor.cost import Limits, NetworkCosts, as_tensor
from compressor.graph import channel_graph
from compressor.methods.method import PruneTask
from compressor.methods.registry import METHODS
from compressor.shrink import Shrinking
from compressor.training import Recipe
from runtime_bench import Measurement, measure_folders

RESULTS = Path(__file__).parent / "results"
PRECISIONS = ("float32", "int8")
PRUNED_SHARES = (0.5, 0.75, 0.9)


@dataclass(frozen=True)
class Variant:
    """One form of the network.

    Attributes:
        name: of the way it was pruned.
        pruned_share: of the weights of convolutions and linear layers, as asked for.
        model: in eval mode.
    """

    name: str
    pruned_share: float
    model: nn.Module


@dataclass(frozen=True)
class Row:
    """One exported file.

    Attributes:
        variant: how the network was pruned.
        pruned_share: as asked for.
        stored_weights: of convolutions and linear layers, zeros included.
        zero_weights: of which these are zero.
        format, precision: of the file.
        size_bytes: on disk.
        gzip_bytes: what is left of it on its way through a compressed channel.
        latency_p50_ms, latency_p90_ms: of one image, one thread.
    """

    variant: str
    pruned_share: float
    stored_weights: int
    zero_weights: int
    format: str
    precision: str
    size_bytes: int
    gzip_bytes: int
    latency_p50_ms: float
    latency_p90_ms: float


def layers(model: nn.Module) -> list[nn.modules.conv._ConvNd | nn.Linear]:
    """Return the convolutions and linear layers."""
    return [m for m in model.modules() if isinstance(m, nn.modules.conv._ConvNd | nn.Linear)]


def with_zeros(model: nn.Module, share: float) -> nn.Module:
    """Return a copy whose smallest weights, compared over all layers, are zero."""
    sparse = copy.deepcopy(model)
    weights = [(layer, "weight") for layer in layers(sparse)]
    prune.global_unstructured(weights, pruning_method=prune.L1Unstructured, amount=share)
    for layer, name in weights:
        prune.remove(layer, name)
    return sparse


def with_fewer_channels(task: Task, share: float, channel_step: int) -> nn.Module:
    """Return a copy without that share of its weights, every layer equally narrowed."""
    graph = channel_graph(task.model, task.example())
    costs = NetworkCosts(graph)
    whole = float(costs.weight_bytes(as_tensor(graph.all_kept())))
    images = task.images("search")
    choice = METHODS["uniform"](
        PruneTask(
            start=Shrinking.whole(copy.deepcopy(task.model), graph),
            graph=graph,
            limits=Limits(costs, {"weight_bytes": (1 - share) * whole}),
            channel_step=channel_step,
            images=images,
            recipe=Recipe(epochs=0, learning_rate=0.0),
            compute=task.compute,
            seed=task.seed,
            checkpoint=Checkpoint(None),
            observer=_Nobody(),
        )
    )
    x = next(iter(images.validation()))[0][:4]
    return choice.left.cut(choice.keep, x)[0].eval()


class _Nobody:
    """An observer that doesn't care."""

    def step(self, stage: str, done: int, total: int, values: object) -> None:
        """Nothing."""

    def epoch(self, stage: str, epoch: int, values: object) -> None:
        """Nothing."""

    def setback(self, stage: str, text: str) -> None:
        """Nothing: the loss stays finite here."""

    def policy(self, progress: float, probabilities: object) -> None:
        """Nothing."""


def variants(task: Task, shares: list[float], channel_step: int) -> list[Variant]:
    """Return the network as it is, then both ways of pruning for every share."""
    found = [Variant("none", 0.0, task.model)]
    for share in shares:
        found.append(Variant("single weights", share, with_zeros(task.model, share)))
        narrow = with_fewer_channels(task, share, channel_step)
        found.append(Variant("whole channels", share, narrow))
    return found


def measure(found: list[Variant], exports: Exports, folder: Path, runs: int) -> list[Row]:
    """Export everything, then time all files side by side."""
    folders = []
    for number, variant in enumerate(found):
        target = folder / str(number)
        stage = "slim" if number else "baseline"
        files = exports.write(variant.model, stage, target, PRECISIONS)
        exports.finish_reference(target, files)
        folders.append(target)
    measured = measure_folders(folders, runs=runs, progress=say)
    return [_row(found[int(Path(m.folder).name)], m) for m in measured]


def _row(variant: Variant, measured: Measurement) -> Row:
    weights = torch.cat([layer.weight.detach().flatten() for layer in layers(variant.model)])
    if measured.latency_ms is None:
        raise RuntimeError(f"{measured.name}: {measured.note}")
    return Row(
        variant=variant.name,
        pruned_share=variant.pruned_share,
        stored_weights=len(weights),
        zero_weights=int((weights == 0).sum()),
        format=measured.format,
        precision=measured.precision,
        size_bytes=measured.size_bytes,
        gzip_bytes=len(gzip.compress((Path(measured.folder) / measured.path).read_bytes())),
        latency_p50_ms=measured.latency_ms["p50"],
        latency_p90_ms=measured.latency_ms["p90"],
    )


def table(rows: list[Row], facts: dict[str, object]) -> str:
    """Return the rows as Markdown, one file format and precision after the other."""
    listing = ", ".join(f"{name} {value}" for name, value in facts.items())
    text = (
        "# Single weights against whole channels\n\n"
        f"`python benchmarks/bench_unstructured.py`: {listing}. The network is untrained: only "
        "bytes and latency count here. Weights are those of convolutions and linear layers; all "
        "files of one run are timed in turns, one image at a time. The widths of whole channels "
        "are rounded to the board's step.\n"
    )
    for format, precision in sorted({(row.format, row.precision) for row in rows}):
        text += (
            f"\n## {format}, {precision}\n\n"
            "| Pruned | Share asked for, % | Weights stored | of them zero | File, KiB "
            "| gzip, KiB | p50, ms | p90, ms |\n|---|---:|---:|---:|---:|---:|---:|---:|\n"
        )
        for row in rows:
            if (row.format, row.precision) == (format, precision):
                text += (
                    f"| {row.variant} | {100 * row.pruned_share:.0f} | {row.stored_weights:,} "
                    f"| {row.zero_weights:,} | {row.size_bytes / 1024:.1f} "
                    f"| {row.gzip_bytes / 1024:.1f} | {row.latency_p50_ms:.3f} "
                    f"| {row.latency_p90_ms:.3f} |\n"
                )
    return text


def say(line: str) -> None:
    """Print one line of progress."""
    print(line, flush=True)


def main() -> int:
    """Make the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--network", default="resnet20")
    parser.add_argument("--board", default="x86-64", help="whose export rules count")
    parser.add_argument("--shares", nargs="+", type=float, default=list(PRUNED_SHARES))
    parser.add_argument("--formats", nargs="+", default=["onnx", "tflite"])
    parser.add_argument("--runs", type=int, default=200, help="timed runs per file")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    arguments = parser.parse_args()
    board = load_board(arguments.board)
    task = load_task(
        JobOptions(board=arguments.board, model=arguments.network, seed=arguments.seed), say
    )
    exports = Exports(task, board, tuple(arguments.formats), "int8", say)
    found = variants(task, arguments.shares, board.channel_steps["int8"])
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(found, exports, Path(folder), arguments.runs)
    facts: dict[str, object] = {
        "network": arguments.network,
        "board": board.id,
        "seed": arguments.seed,
        "runs": arguments.runs,
        "threads": 1,
        "Python": platform.python_version(),
        "torch": torch.__version__,
        "machine": f"{platform.machine()} with {os.cpu_count()} cores",
    }
    arguments.out.mkdir(parents=True, exist_ok=True)
    document = {"schema_version": 1, "facts": facts, "rows": [asdict(row) for row in rows]}
    text = json.dumps(document, indent=1)
    (arguments.out / "unstructured.json").write_text(text + "\n", encoding="utf-8")
    (arguments.out / "unstructured.md").write_text(table(rows, facts), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
