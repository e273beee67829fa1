"""Pruning and precision against one budget of bytes: chosen together, or one after the other.

    python -m benchmarks.quantization.joint --network resnet20 --shares 0.25 0.125 0.0625 \
        --seeds 0 1 --data CIFAR --work WORK

A candidate is a network pruned by DECORE until its weights, stored in an assumed precision, take at
most the budget's bytes, fine-tuned, and trained with the rounding of the precision that its file
has. All candidates get the same epochs.

- Sequential: pruned for int8, whatever the file will be; then the precision is chosen.
- Joint: pruned for each precision by that precision's bytes, so that a network of 4 bits keeps
  about twice the weights; then the pair is chosen.

Both choose the candidate within the budget that is best on the validation images; that is left to
the page, each row of results/quantization/joint.jsonl is one candidate. The budget is a share of
what the unpruned network's weights and biases take in int8. Needs the baseline in WORK/baselines.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.pruning import compare, results
from benchmarks.pruning.setting import NETWORKS, Setting, Watcher, say
from benchmarks.pruning.variants import VARIANTS
from benchmarks.quantization.bits import rounded, train
from benchmarks.quantization.setting import add_arguments, open_task, saved_options
from boards.parts import FilePrecision
from compress_export.options import JobOptions
from compress_export.task import Task
from compressor.checkpoint import Checkpoint
from compressor.cost import Limits, NetworkCosts, as_tensor
from compressor.errors import InputError
from compressor.graph import channel_graph
from compressor.saved import load_model, save_model
from compressor.training import evaluate

FILE = "joint.jsonl"
BYTES_PER_WEIGHT: dict[FilePrecision, float] = {
    "int8": 1.0,
    "int4-weights": 0.5,
    "int2-weights": 0.25,
}
SEQUENTIAL: FilePrecision = "int8"
METHOD = "decore"


@dataclass(frozen=True)
class Candidate:
    """One pruned network in one precision.

    Attributes:
        network: key of `NETWORKS`.
        share: the budget, of the unpruned network's bytes in int8.
        assumed: the precision whose bytes the pruning counted.
        precision: of the file.
        seed: of the order of batches and of everything drawn.
        search_epochs, finetune_epochs, epochs: of the search, of fine-tuning, and of training with
            rounding.
        images: how many of each part were used; None is all of them.
    """

    network: str
    share: float
    assumed: FilePrecision
    precision: FilePrecision
    seed: int
    search_epochs: int
    finetune_epochs: int
    epochs: int
    images: int | None

    @property
    def pruning(self) -> compare.Run:
        """The run that prunes for it, which other precisions of the file share."""
        few = "" if self.images is None else f"-{self.images}images"
        return compare.Run(
            self.network, METHOD, f"weight_bytes-{self.assumed}{few}", self.share, self.seed,
            self.search_epochs + self.finetune_epochs, self.search_epochs, 0.05,
        )  # fmt: skip

    @property
    def name(self) -> str:
        """For people, and for the checkpoint's file."""
        return f"{self.pruning.name}-{self.precision}-e{self.epochs}"


def main() -> None:
    """Make the candidates that are missing."""
    arguments = _parser().parse_args()
    path = arguments.results / FILE
    setting = Setting(
        Path(arguments.data), None, arguments.work, arguments.results, arguments.device
    )
    try:
        options = saved_options(
            setting.baseline(arguments.network), arguments.data, arguments.device
        )
        baseline = open_task(options, arguments.images, arguments.threads)
        for candidate in candidates(arguments):
            if results.finished(path, asdict(candidate)):
                say(f"{candidate.name}: finished before")
            else:
                row = measure(candidate, baseline, options, setting)
                results.append(path, asdict(candidate) | row)
    except InputError as error:
        raise SystemExit(f"error: {error}") from None


def candidates(arguments: argparse.Namespace) -> Iterator[Candidate]:
    """Yield those of the sequential way, and those whose pruning knows the precision."""
    for seed in arguments.seeds:
        for share in arguments.shares:
            for assumed, precision in pairs():
                yield Candidate(
                    arguments.network, share, assumed, precision, seed, arguments.search_epochs,
                    arguments.finetune_epochs, arguments.epochs, arguments.images,
                )  # fmt: skip


def pairs() -> list[tuple[FilePrecision, FilePrecision]]:
    """Return the assumed precision and the file's of all candidates for one budget and seed."""
    sequential = [(SEQUENTIAL, precision) for precision in BYTES_PER_WEIGHT]
    joint = [(precision, precision) for precision in BYTES_PER_WEIGHT if precision != SEQUENTIAL]
    return [*sequential, *joint]


def measure(
    candidate: Candidate, baseline: Task, options: JobOptions, setting: Setting
) -> dict[str, Any]:
    """Prune, fine-tune, train with rounding; return the figures of the row.

    The test images are read at the end, by the finished network alone.
    """
    started = time.monotonic()
    budget_bytes, pruned = prune(candidate, baseline, setting)
    task = replace(
        baseline, model=load_model(setting.baseline(candidate.network)), seed=candidate.seed
    )
    slim = replace(task, model=load_model(pruned))
    network = rounded(slim, candidate.precision)
    checkpoint = setting.work / "quantization" / "joint" / f"{candidate.name}.pt"
    watcher = Watcher(candidate.name)
    found = {
        "budget_bytes": budget_bytes,
        "weight_bytes": stored_bytes(slim, candidate.precision),
        "parameters": sum(p.numel() for p in slim.model.parameters()),
        "validation_pruned": evaluate(slim.model, _validation(task), task.compute),
        "validation_rounded": evaluate(network, _validation(task), task.compute),
        "validation_trained": train(
            network, task, options, candidate.epochs, Checkpoint(checkpoint), watcher
        ),
        "test_trained": evaluate(network, task.test_batches(), task.compute),
        "curves": watcher.curves,
        "seconds_since_last_start": round(time.monotonic() - started, 1),
    }
    checkpoint.unlink(missing_ok=True)
    say(
        f"{candidate.name}: {found['weight_bytes']:.0f} of {budget_bytes:.0f} bytes, validation "
        f"{found['validation_trained']:.4f}, test {found['test_trained']:.4f}"
    )
    return found


def prune(candidate: Candidate, baseline: Task, setting: Setting) -> tuple[float, Path]:
    """Prune and fine-tune unless that was done for another precision; return budget and folder."""
    task = compare.fresh(candidate.pruning, baseline, setting)
    graph = channel_graph(task.model, task.example())
    whole = as_tensor(graph.all_kept())
    int8_bytes = float(NetworkCosts(graph, BYTES_PER_WEIGHT["int8"]).weight_bytes(whole))
    budget_bytes = candidate.share * int8_bytes
    folder = setting.work / "quantization" / "networks" / candidate.pruning.name
    if not (folder / "model.json").exists():
        costs = NetworkCosts(graph, BYTES_PER_WEIGHT[candidate.assumed])
        limits = Limits(costs, {"weight_bytes": budget_bytes})
        slimmed, _ = compare.prune_and_recover(
            candidate.pruning, VARIANTS[METHOD], task, setting, graph, limits
        )
        save_model(slimmed.cpu(), task.architecture, len(task.data.classes), folder)
        compare.drop_checkpoints(candidate.pruning, setting)
    return budget_bytes, folder


def stored_bytes(task: Task, precision: FilePrecision) -> float:
    """Return the bytes of a network's weights and biases in a precision."""
    graph = channel_graph(task.model, task.example())
    costs = NetworkCosts(graph, BYTES_PER_WEIGHT[precision])
    return float(costs.weight_bytes(as_tensor(graph.all_kept())))


def _validation(task: Task) -> Any:
    return task.images("quantization").validation()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.quantization.joint",
        description=(__doc__ or "").splitlines()[0],
    )
    parser.add_argument("--network", choices=list(NETWORKS), required=True)
    parser.add_argument("--shares", type=float, nargs="+", required=True, help="budgets")
    parser.add_argument("--search-epochs", type=int, default=4)
    parser.add_argument("--finetune-epochs", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=3, help="of training with rounding")
    add_arguments(parser)
    return parser


if __name__ == "__main__":
    main()
