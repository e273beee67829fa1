"""How long and how fast each stage trains where the user doesn't say."""

from __future__ import annotations

import math
from dataclasses import dataclass

from compress_export.options import JobOptions
from compressor.methods.catalogue import CATALOGUE
from compressor.training import Recipe

_REFERENCE_BATCH = 128
_PRUNING_RATE = 0.05
"""Chosen on validation images, see benchmarks/results/pruning/screening.jsonl."""


@dataclass(frozen=True)
class Epochs:
    """Epochs of each stage."""

    baseline: int
    search: int
    finetune: int


def choose_epochs(options: JobOptions, steps_per_epoch: int, trained: bool) -> Epochs:
    """Fill in what the options leave open: enough steps for small sets, few epochs for large.

    A method without a search leaves its epochs to fine-tuning, so that methods compare.
    """
    from_scratch = 0 if trained else _at_least(20, 400, steps_per_epoch)
    search = _or(options.search_epochs, _at_least(5, 200, steps_per_epoch))
    finetune = _or(options.finetune_epochs, _at_least(10, 300, steps_per_epoch))
    if not CATALOGUE[options.method].searches and options.rounds == 1:
        search, finetune = 0, search + finetune
    return Epochs(
        baseline=from_scratch if options.baseline_epochs is None else options.baseline_epochs,
        search=search,
        finetune=finetune,
    )


def baseline_recipe(options: JobOptions, epochs: Epochs, batch_size: int, trained: bool) -> Recipe:
    """Train from scratch, or adapt given weights with a fifth of the rate."""
    rate = 0.02 if trained else 0.1
    return Recipe(
        epochs.baseline,
        _rate(options, rate, batch_size),
        label_smoothing=0.0 if trained else 0.1,
    )


def search_recipe(options: JobOptions, epochs: Epochs, batch_size: int) -> Recipe:
    """Weights adapt while channels come and go, at a rate that fine-tuning then takes down.

    `paper` gets plain cross-entropy.
    """
    distillation = 0.0 if options.method == "paper" else 0.5
    rate = _rate(options, _PRUNING_RATE, batch_size)
    return Recipe(epochs.search, rate, distillation=distillation, warmup_share=0.1, decays=False)


def finetune_recipe(options: JobOptions, epochs: Epochs, batch_size: int) -> Recipe:
    """Distillation from the original; the second half of one cycle that the search began."""
    rate = _rate(options, _PRUNING_RATE, batch_size)
    warmup_share = 0.0 if epochs.search else 0.1
    return Recipe(epochs.finetune, rate, distillation=0.5, warmup_share=warmup_share)


def _rate(options: JobOptions, at_reference_batch: float, batch_size: int) -> float:
    if options.learning_rate is not None:
        return options.learning_rate
    return at_reference_batch * min(1.0, batch_size / _REFERENCE_BATCH)


def _at_least(epochs: int, steps: int, steps_per_epoch: int) -> int:
    return max(epochs, math.ceil(steps / max(steps_per_epoch, 1)))


def _or(value: int | None, otherwise: int) -> int:
    return otherwise if value is None else value
