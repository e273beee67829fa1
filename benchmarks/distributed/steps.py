"""Steps of a ResNet-20, timed: torchrun ... -m benchmarks.distributed.steps OUT.json."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from compressor import ranks
from compressor.checkpoint import Checkpoint
from compressor.compute import Compute
from compressor.cost import Limits, NetworkCosts, as_tensor
from compressor.graph import channel_graph
from compressor.methods.method import PruneTask
from compressor.methods.registry import METHODS
from compressor.models import build_model
from compressor.recipe import Recipe
from compressor.shrink import Shrinking
from compressor.training import Batch, fit

BATCH, STEPS = 64, 6
_COMPUTE = Compute(torch.device("cpu"), mixed_precision=False)


class Noise:
    """One batch of noise, again and again: (64, 3, 32, 32)."""

    steps_per_epoch = STEPS

    def __init__(self) -> None:
        random = torch.Generator().manual_seed(0)
        self._batch = torch.randn(BATCH, 3, 32, 32, generator=random), torch.arange(BATCH) % 10

    def train(self, epoch: int) -> Iterator[Batch]:
        """Yield the steps of an epoch."""
        for _ in range(STEPS):
            yield self._batch

    def validation(self) -> list[Batch]:
        """Return a few images."""
        return [(self._batch[0][:2], self._batch[1][:2])]


class Stopwatch:
    """An observer that takes the time of every step, and counts what was sent meanwhile."""

    def __init__(self) -> None:
        self.marks: list[tuple[float, ...]] = []
        self.sent = [0, 0]

    def step(self, stage: str, done: int, total: int, values: Mapping[str, float]) -> None:
        """Note the wall time, this process's own time, bytes and calls so far."""
        self.marks.append((time.perf_counter(), time.process_time(), *self.sent))

    def epoch(self, *_: object) -> None: ...
    def setback(self, *_: object) -> None: ...
    def policy(self, *_: object) -> None: ...

    def row(self, what: str) -> dict[str, Any]:
        """Return what a step takes: the median, and the fastest, which others disturbed least."""
        steps = np.diff(np.array(self.marks), axis=0)  # (steps - 1, 4)
        wall, own, sent, calls = np.median(steps, axis=0).tolist()
        return {
            "what": what,
            "images": BATCH,
            "steps": len(steps),
            "median_ms": 1e3 * wall,
            "fastest_ms": 1e3 * float(steps[:, 0].min()),
            "cpu_ms": 1e3 * own,
            "sent_bytes": sent,
            "calls": calls,
            "load_average": os.getloadavg()[0],
        }


def counted(added: Callable[[Tensor], Tensor], watch: Stopwatch) -> Callable[[Tensor], Tensor]:
    """Return `ranks.added` that counts."""

    def count(values: Tensor) -> Tensor:
        watch.sent[0] += values.numel() * values.element_size()
        watch.sent[1] += 1
        return added(values)

    return count


def measure() -> list[dict[str, Any]]:
    """Return what a step of training takes, and one of the search."""
    rows = []
    for what in ("training", "search"):
        watch, images = Stopwatch(), Noise()
        plain = ranks.added
        ranks.added = counted(plain, watch)  # type: ignore[assignment]
        torch.manual_seed(0)
        model = build_model("resnet20", 10)
        recipe, nowhere = Recipe(1, 0.01), Checkpoint(None)
        if what == "training":
            fit(model, images, recipe, _COMPUTE, stage=what, checkpoint=nowhere, observer=watch)
        else:
            graph = channel_graph(model, torch.zeros(1, 3, 32, 32))
            costs = NetworkCosts(graph)
            whole = float(costs.macs(as_tensor(graph.all_kept())))
            task = PruneTask(
                start=Shrinking.whole(model, graph),
                graph=graph,
                limits=Limits(costs, {"macs": 0.5 * whole}),
                channel_step=1,
                images=images,
                recipe=recipe,
                compute=_COMPUTE,
                seed=0,
                checkpoint=nowhere,
                observer=watch,
            )
            METHODS["decore"](task)
        ranks.added = plain
        rows.append(watch.row(what))
    return rows


if __name__ == "__main__":
    torch.set_num_threads(1)
    with ranks.joined():
        found = measure()
        if ranks.is_first():
            Path(sys.argv[1]).write_text(json.dumps(found), encoding="utf-8")
