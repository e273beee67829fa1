"""How much of a training step of MobileNetV2 at 224 pixels is spent on its images.

    python benchmarks/bench_loading.py --threads 2

The same training runs on batches that lie ready, on JPEG files that were decoded once into memory,
on JPEG files that are decoded anew in every epoch (as sets are that don't fit into memory), and on
arrays, all with shifting and mirroring. A few steps of each alternate in one process, so that other
work on the machine hits all of them. Three figures tell what the images cost:

- waiting: the share of the time between two steps that the training waits for the next batch;
- slower: how much longer a step takes than one on batches that lie ready, which also holds what
  decoding takes from the cores while the network trains;
- work: how much more processor time a step takes, which other programs disturb the least.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from compress_export.data import ImageSet, Preprocessing, train_batches
from compress_export.data.image_set import MAX_MEMORY_BYTES, read_image_set
from compressor.models import build_model
from runtime_bench import host_facts

RESULTS = Path(__file__).parent / "results"
NETWORK, SIZE, CLASSES = "mobilenet_v2", 224, 10
PREPROCESSING = Preprocessing(SIZE, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
READY = "batches that lie ready"
ALLOWED_SHARE = 0.1

Batch = tuple[torch.Tensor, torch.Tensor]


@dataclass
class Source:
    """One way to get batches, and what was measured of it.

    Attributes:
        batches: makes the batches of an epoch.
        load_ms_per_image: to decode or check the images before the training.
        wait_s, total_s: of every block of steps, waiting and altogether.
        work_s: processor time of all threads, of every block of steps.
    """

    name: str
    batches: Callable[[int], Iterator[Batch]]
    load_ms_per_image: float = 0.0
    wait_s: list[float] = field(default_factory=list)
    total_s: list[float] = field(default_factory=list)
    work_s: list[float] = field(default_factory=list)


def main() -> None:
    """Measure, print, and write JSON and a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=4, help="of each source in its turn")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--width", type=int, default=500, help="of the JPEG files, in pixels")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    count = arguments.batch * (arguments.steps + 1)
    with tempfile.TemporaryDirectory() as folder:
        files = write_jpegs(Path(folder), count, arguments.width)
        sources = make_sources(files, arguments.batch)
        train = Trainer()
        for _ in range(arguments.repeats):
            for source in sources:
                run_block(source, train, arguments.steps)
    found = {
        "threads": arguments.threads,
        "torch": torch.__version__,
        "host": host_facts().to_json(),
        "load_average": [round(load, 1) for load in os.getloadavg()],
        "batch": arguments.batch,
        "jpeg": [arguments.width, arguments.width * 3 // 4],
        "rows": [row_of(source, sources[0], arguments.steps) for source in sources],
    }
    print(table(found))
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "loading.json").write_text(json.dumps(found, indent=1) + "\n")
    (arguments.out / "loading.md").write_text(table(found))


def write_jpegs(folder: Path, count: int, width: int) -> list[Path]:
    """Write JPEG files of 4:3 that cost what photographs cost: smooth shapes and some grain."""
    random = np.random.default_rng(0)
    height, paths = width * 3 // 4, []
    for number in range(count):
        coarse = Image.fromarray(random.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), np.float32)
        grain = random.normal(0, 6, smooth.shape)
        paths.append(folder / f"{number:05}.jpg")
        pixels = (smooth + grain).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(paths[-1], quality=90)
    return paths


def make_sources(files: list[Path], batch_size: int) -> list[Source]:
    """The four ways, batches that lie ready first."""
    labels = np.arange(len(files)) % CLASSES
    once, once_ms = _read(files, labels, MAX_MEMORY_BYTES)
    anew, anew_ms = _read(files, labels, 0)
    arrays = np.asarray(once.read(np.arange(len(files)))).transpose(0, 2, 3, 1)
    held, held_ms = _read(arrays, labels, MAX_MEMORY_BYTES)

    def epochs(image_set: ImageSet) -> Callable[[int], Iterator[Batch]]:
        return lambda epoch: train_batches(
            image_set, PREPROCESSING, batch_size, seed=0, epoch=epoch, augment=True, flip=True
        )

    ready = list(epochs(once)(0))
    return [
        Source(READY, lambda epoch: iter(ready)),
        Source("JPEG files, decoded once", epochs(once), once_ms),
        Source("JPEG files, decoded in every epoch", epochs(anew), anew_ms),
        Source("arrays", epochs(held), held_ms),
    ]


def _read(items: Any, labels: np.ndarray, max_memory_bytes: int) -> tuple[ImageSet, float]:
    start = time.perf_counter()
    image_set, _ = read_image_set(items, labels, SIZE, lambda count: None, max_memory_bytes)
    return image_set, (time.perf_counter() - start) * 1e3 / len(labels)


class Trainer:
    """Plain training steps of one network, which all sources share."""

    def __init__(self) -> None:
        self._model = build_model(NETWORK, CLASSES).train()
        self._optimizer = torch.optim.SGD(self._model.parameters(), lr=0.01, momentum=0.9)

    def __call__(self, x: torch.Tensor, labels: torch.Tensor) -> None:
        self._optimizer.zero_grad()
        nn.functional.cross_entropy(self._model(x), labels).backward()
        self._optimizer.step()


def run_block(source: Source, train: Trainer, steps: int) -> None:
    """Time some steps; the first one is not timed, nobody has fetched its batch ahead."""
    batches = source.batches(len(source.wait_s))
    train(*next(batches))
    waited, start, worked = 0.0, time.perf_counter(), time.process_time()
    for _ in range(steps):
        before = time.perf_counter()
        batch = next(batches)
        waited += time.perf_counter() - before
        train(*batch)
    source.wait_s.append(waited)
    source.total_s.append(time.perf_counter() - start)
    source.work_s.append(time.process_time() - worked)
    if close := getattr(batches, "close", None):
        close()


def row_of(source: Source, ready: Source, steps: int) -> dict[str, Any]:
    """Medians over the blocks; each block is compared with the ready one of its turn."""

    def ratio(values: list[float], references: list[float]) -> float:
        return statistics.median(v / r for v, r in zip(values, references, strict=True))

    return {
        "source": source.name,
        "load_ms_per_image": source.load_ms_per_image,
        "step_ms": statistics.median(source.total_s) * 1e3 / steps,
        "wait_share": ratio(source.wait_s, source.total_s),
        "slower_share": ratio(source.total_s, ready.total_s) - 1,
        "work_share": ratio(source.work_s, ready.work_s) - 1,
    }


def table(found: dict[str, Any]) -> str:
    """The rows as Markdown."""
    width, height = found["jpeg"]
    lines = [
        "# What a training step spends on its images\n",
        f"{NETWORK} at {SIZE} pixels, batch {found['batch']}, {found['threads']} threads, torch "
        f"{found['torch']}, JPEG files of {width} x {height}, medians, load average "
        f"{found['load_average'][0]}. `python benchmarks/bench_loading.py`\n",
        f"At most {ALLOWED_SHARE:.0%} of a step may be waiting.\n",
        "| images | before the training, ms each | step ms | waiting % | slower % | work % |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for row in found["rows"]:
        lines.append(
            f"| {row['source']} | {row['load_ms_per_image']:.2f} | {row['step_ms']:.0f} | "
            f"{100 * row['wait_share']:.1f} | {100 * row['slower_share']:.1f} | "
            f"{100 * row['work_share']:.1f} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
