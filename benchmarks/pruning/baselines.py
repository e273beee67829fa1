"""Train or adapt the unpruned networks: `python -m benchmarks.pruning.baselines resnet20 ...`.

Resumes after an interruption; a finished baseline is left alone, and one that has a row but whose
weights were lost is made again: only the same network may take its place. The validation images are
put aside before anything is trained, but published weights have seen them: on them the network
starts too well and gets worse while it forgets. So the last epoch is kept, where the rate has come
down to zero, and not the best. Each row of results/pruning/baselines.jsonl is one network.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np

from benchmarks.pruning import results
from benchmarks.pruning.setting import NETWORKS, Setting, Watcher, add_arguments, open_setting, say
from compress_export.task import Task
from compressor.checkpoint import Checkpoint
from compressor.errors import InputError
from compressor.saved import save_model
from compressor.training import Recipe, evaluate, fit, predictions


def main() -> None:
    """Make every named baseline that is missing."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("networks", nargs="+", choices=list(NETWORKS))
    add_arguments(parser)
    arguments = parser.parse_args()
    setting = open_setting(arguments)
    for network in arguments.networks:
        row = _row(setting, network)
        if row and _is_there(setting, network):
            say(f"{network}: finished before")
        else:
            make_baseline(setting, network, row)


def _row(setting: Setting, network: str) -> dict[str, Any] | None:
    rows = results.rows(setting.results / "baselines.jsonl")
    return next((row for row in rows if row["network"] == network), None)


def _is_there(setting: Setting, network: str) -> bool:
    try:
        setting.baseline(network)
    except InputError:
        return False
    return True


def make_baseline(setting: Setting, network: str, lost: dict[str, Any] | None) -> None:
    """Train one baseline, measure it on the test images once, save it, append its row.

    Args:
        lost: row of the baseline whose weights are made again; it stays as it is.

    Raises:
        InputError: what was made again answers otherwise.
    """
    plan = NETWORKS[network]
    task = setting.task(network, adapted=False)
    recipe = Recipe(plan.epochs, plan.learning_rate, label_smoothing=plan.label_smoothing)
    watcher, started = Watcher(network), time.monotonic()
    checkpoint = Checkpoint(setting.work / "baselines" / f"{network}.pt")
    fit(
        task.model,
        task.images("baseline"),
        recipe,
        task.compute,
        stage="baseline",
        checkpoint=checkpoint,
        observer=watcher,
    )
    state = checkpoint.load()
    if state is None:
        raise InputError(f"{network}: a baseline of 0 epochs is the given network itself")
    task.model.load_state_dict(state["model"])
    top1 = evaluate(task.model, task.images("baseline").validation(), task.compute)
    seconds = time.monotonic() - started
    right = right_answers(task)
    say(f"{network}: validation {top1:.4f}, test {right.mean():.4f}")
    if lost and lost["test_right"] != results.pack(right):
        raise InputError(
            f"{network}: another network than that of baselines.jsonl (test {lost['test_top1']}), "
            "whose runs can't be added to; other hardware or versions train differently. To begin "
            "anew, take out its row and the rows of its runs, or give another --results"
        )
    save_model(task.model.cpu(), task.architecture, 10, setting.work / "baselines" / network)
    if lost:
        return
    results.append(
        setting.results / "baselines.jsonl",
        {
            "network": network,
            "epochs": plan.epochs,
            "seed": task.seed,
            "validation_top1": top1,
            "test_top1": float(right.mean()),
            "test_right": results.pack(right),
            "seconds_since_last_start": round(seconds),
            "curves": watcher.curves,
        },
    )


def right_answers(task: Task) -> np.ndarray:
    """Return which test images the task's network answers rightly, bool (N,)."""
    pairs = list(predictions(task.model, task.test_batches(), task.compute))
    return np.concatenate([(predicted == labels).numpy() for predicted, labels in pairs])


if __name__ == "__main__":
    main()
