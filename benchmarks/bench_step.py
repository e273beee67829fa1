"""What a DECORE step costs beside a plain training step, and how steps get cheaper with the MACs.

    python -m benchmarks.bench_step --threads 1

Synthetic images: only time is measured. Plain and DECORE steps of one network take turns of a few
steps in one process, so that other work on the machine hits both, and a ratio is the median of the
turns' ratios. The DECORE steps go through a whole schedule in that time, from all channels to half
of the MACs, and no channel is cut out. The second table cuts a network to shares of its MACs (equal
shares of every layer) and times plain steps of what is left. Networks that aren't named keep the
figures of an earlier run.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from boards import load_board
from compressor.checkpoint import Checkpoint
from compressor.compute import Compute
from compressor.cost import Limits, NetworkCosts, as_tensor
from compressor.decore.projection import TargetError
from compressor.graph import channel_graph
from compressor.methods.learned import Decore
from compressor.methods.method import PruneTask
from compressor.methods.registry import METHODS
from compressor.models import build_model
from compressor.shrink import Shrinking
from compressor.training import Batch, Recipe, fit

RESULTS = Path(__file__).parent / "results"
BATCH, SIZE, CLASSES = 128, 32, 10
CHANNEL_STEP = load_board("x86-64").channel_steps["int8"]
SHARES = (1.0, 0.75, 0.5, 0.35, 0.25, 0.125)


class Synthetic:
    """The same few random batches in every epoch."""

    def __init__(self, steps: int) -> None:
        self.steps_per_epoch = steps
        generator = torch.Generator().manual_seed(0)
        self._x = torch.randn(BATCH, 3, SIZE, SIZE, generator=generator)
        self._labels = torch.randint(0, CLASSES, (BATCH,), generator=generator)

    def train(self, epoch: int) -> Iterator[Batch]:
        """Yield the batch again and again."""
        for _ in range(self.steps_per_epoch):
            yield self._x, self._labels

    def validation(self) -> Iterator[Batch]:
        """Yield four images: validating is not what is timed."""
        yield self._x[:4], self._labels[:4]


class Stopwatch:
    """Keeps the seconds between steps; the first step of a run warms up and doesn't count."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._last: float | None = None

    def step(self, stage: str, done: int, total: int, values: Mapping[str, float]) -> None:
        """Note a step."""
        now = time.perf_counter()
        if self._last is not None:
            self.seconds.append(now - self._last)
        self._last = now

    def epoch(self, stage: str, epoch: int, values: Mapping[str, float]) -> None:
        """End a run: what comes before the next first step is not a step."""
        self._last = None

    def setback(self, stage: str, text: str) -> None:
        """Nothing: the loss stays finite here."""

    def policy(self, progress: float, probabilities: object) -> None:
        """Nothing: it takes no time of its own."""


def main() -> None:
    """Measure, write JSON, tables and the picture."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--networks", nargs="+", default=["resnet20", "resnet56", "resnet18"])
    parser.add_argument("--turns", type=int, default=10)
    parser.add_argument("--steps", type=int, default=6, help="of a turn; the first is left out")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    compute = Compute.choose(arguments.device)
    file = RESULTS / "step.json"
    setting = {
        "threads": arguments.threads,
        "device": str(compute.device),
        "torch": torch.__version__,
        "batch": BATCH,
    }
    found: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    if {name: found.get(name) for name in setting} != setting:
        found = {**setting, "step": {}, "shrunk": {}}
    for name in arguments.networks:
        found["step"][name] = step_ratios(name, compute, arguments.turns, arguments.steps)
        found["shrunk"][name] = shrunk_steps(name, compute, arguments.turns, arguments.steps)
        print(name, found["step"][name])
        RESULTS.mkdir(exist_ok=True)
        file.write_text(json.dumps(found, indent=1) + "\n")


def step_ratios(name: str, compute: Compute, turns: int, steps: int) -> dict[str, float]:
    """Time plain and DECORE steps in turns, each without and with a teacher.

    Returns:
        Median milliseconds of a step, and the medians of the ratios of neighbouring turns.
    """
    model, teacher = build_model(name, CLASSES), build_model(name, CLASSES)
    compute.place(teacher).eval()
    graph = channel_graph(model, torch.zeros(1, 3, SIZE, SIZE))
    costs = NetworkCosts(graph)
    limits = Limits(costs, costs.shares({"macs": 0.5}, as_tensor(graph.all_kept())))
    images = Synthetic(steps)
    found: dict[str, list[float]] = {}
    for _ in range(turns):
        for key in ("plain", "decore", "plain+teacher", "decore+teacher"):
            watch = Stopwatch()
            taught = teacher if key.endswith("teacher") else None
            recipe = Recipe(1, 1e-4, distillation=0.5 if taught else 0.0)
            if key.startswith("plain"):
                _plain(model, images, recipe, compute, watch, taught)
            else:
                task = PruneTask(
                    Shrinking.whole(model, graph), graph, limits, CHANNEL_STEP, images, recipe,
                    compute, 0, Checkpoint(None), watch, taught,
                )  # fmt: skip
                Decore(cut_while_learning=False)(task)
            found.setdefault(key, []).append(statistics.median(watch.seconds) * 1e3)
    return {key: statistics.median(turn) for key, turn in found.items()} | {
        "ratio": _median_ratio(found["decore"], found["plain"]),
        "ratio_with_teacher": _median_ratio(found["decore+teacher"], found["plain+teacher"]),
    }


def _median_ratio(some: Sequence[float], others: Sequence[float]) -> float:
    return statistics.median(one / other for one, other in zip(some, others, strict=True))


def shrunk_steps(name: str, compute: Compute, turns: int, steps: int) -> list[dict[str, float]]:
    """Time plain steps of the network at shares of its MACs, in turns."""
    images, rows, nets = Synthetic(steps), [], []
    for share in SHARES:
        try:
            net, left = _uniformly_cut(name, share, compute)
        except TargetError:
            continue  # this network has no such width
        nets.append((net, Stopwatch()))
        rows.append({"macs_share": left})
    for _ in range(turns):
        for net, watch in nets:
            _plain(net, images, Recipe(1, 1e-4), compute, watch, None)
    for row, (_, watch) in zip(rows, nets, strict=True):
        row["step_ms"] = statistics.median(watch.seconds) * 1e3
    for row in rows:
        row["time_share"] = row["step_ms"] / rows[0]["step_ms"]
    return rows


def _uniformly_cut(name: str, share: float, compute: Compute) -> tuple[nn.Module, float]:
    model = build_model(name, CLASSES)
    graph = channel_graph(model, torch.zeros(1, 3, SIZE, SIZE))
    costs = NetworkCosts(graph)
    whole = float(costs.macs(as_tensor(graph.all_kept())))
    task = PruneTask(
        start=Shrinking.whole(model, graph),
        graph=graph,
        limits=Limits(costs, {"macs": share * whole}),
        channel_step=8,
        images=Synthetic(1),
        recipe=Recipe(0, 0.1),
        compute=compute,
        seed=0,
        checkpoint=Checkpoint(None),
        observer=Stopwatch(),
    )
    choice = METHODS["uniform"](task)
    left, _ = choice.left.cut(choice.keep, torch.randn(2, 3, SIZE, SIZE))
    return left, float(costs.macs(as_tensor(choice.keep))) / whole


def _plain(
    model: nn.Module,
    images: Synthetic,
    recipe: Recipe,
    compute: Compute,
    watch: Stopwatch,
    teacher: nn.Module | None,
) -> None:
    fit(
        model, images, recipe, compute,
        stage="plain", checkpoint=Checkpoint(None), observer=watch, teacher=teacher,
    )  # fmt: skip


if __name__ == "__main__":
    main()
