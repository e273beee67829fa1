"""How long and how fast each stage trains where the user doesn't say."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from compress_export.options import JobOptions
from compressor.methods.catalogue import CATALOGUE
from compressor.training import Recipe

_REFERENCE_BATCH = 128
_PRUNING_RATE = 0.05
"""High enough to adapt a network that lost most of its channels; for batches of 128."""

_CODEBOOK_RATE = 0.01
"""Of centroids: their weights are trained already, and only a few values are left to move."""

_QUANTIZATION_RATE = 0.01
"""For weights that are trained and only have to settle on a grid."""

_QUANTIZATION_GRADIENT = 1.0
"""ResNet-20 in 4 bits starts with gradients of length 23 and diverges within three steps."""

_BASELINE_WARMUP, _PRUNING_WARMUP = 0.2, 0.1
_DISTILLATION = 0.5
_ATTENTION = 1000.0
"""Beta of attention transfer as its authors chose it, https://arxiv.org/abs/1612.03928."""

_WEIGHT_DECAY: Mapping[str, float] = {"l2": 5e-4, "l1": 1e-5}
"""Both pull alike at a weight of 0.02, a usual one."""


@dataclass(frozen=True)
class Epochs:
    """Epochs of each stage."""

    baseline: int
    search: int
    finetune: int
    codebook: int = 0
    quantization: int = 0

    @property
    def taught(self) -> int:
        """Epochs of all stages that a teacher may have a part in: all but the baseline's."""
        return self.search + self.finetune + self.codebook + self.quantization

    @property
    def trains(self) -> bool:
        """Whether any stage trains."""
        return self.baseline + self.taught > 0


def choose_epochs(options: JobOptions, steps_per_epoch: int, trained: bool) -> Epochs:
    """Fill in what the options leave open: enough steps for small sets, few epochs for large.

    A method without a search leaves its epochs to fine-tuning, so that methods compare.
    """
    baseline = 0 if trained else _at_least(20, 400, steps_per_epoch)
    if options.new_head:
        baseline = _at_least(10, 300, steps_per_epoch)
    search = _or(options.search_epochs, _at_least(5, 200, steps_per_epoch))
    finetune = _or(options.finetune_epochs, _at_least(10, 300, steps_per_epoch))
    if not CATALOGUE[options.method].searches and options.rounds == 1:
        search, finetune = 0, search + finetune
    if "prune" not in options.stages:
        search = finetune = 0
    return Epochs(
        baseline=_or(options.baseline_epochs, baseline),
        search=search,
        finetune=finetune,
        codebook=_codebook_epochs(options, steps_per_epoch),
        quantization=options.qat_epochs,
    )


def baseline_recipe(options: JobOptions, epochs: Epochs, batch_size: int, trained: bool) -> Recipe:
    """Train from scratch, or adapt given weights with a fifth of the rate."""
    recipe = _recipe(options, epochs.baseline, 0.02 if trained else 0.1, batch_size)
    warmup_share = _warmup_share(options, _BASELINE_WARMUP)
    return replace(recipe, warmup_share=warmup_share, label_smoothing=0.0 if trained else 0.1)


def search_recipe(options: JobOptions, epochs: Epochs, batch_size: int) -> Recipe:
    """Weights adapt while channels come and go, at a rate that fine-tuning then takes down.

    `paper` gets plain cross-entropy.
    """
    recipe = _recipe(options, epochs.search, _PRUNING_RATE, batch_size)
    teaches = options.method != "paper" and options.distill != "none"
    return replace(
        recipe,
        distillation=_DISTILLATION if teaches else 0.0,
        warmup_share=_warmup_share(options, _PRUNING_WARMUP),
        decays=False,
    )


def finetune_recipe(options: JobOptions, epochs: Epochs, batch_size: int) -> Recipe:
    """Distillation from the teacher; the second half of one cycle that the search began."""
    recipe = _recipe(options, epochs.finetune, _PRUNING_RATE, batch_size)
    return replace(
        recipe,
        distillation=0.0 if options.distill == "none" else _DISTILLATION,
        attention=_ATTENTION if options.distill == "features" else 0.0,
        warmup_share=0.0 if epochs.search else _warmup_share(options, _PRUNING_WARMUP),
    )


def codebook_recipe(options: JobOptions, epochs: Epochs, batch_size: int) -> Recipe:
    """Centroids, norms and biases learn from the teacher at a rate that falls from the start.

    Centroids are not decayed: they stand for weights that were.
    """
    return _touching_up(options, epochs.codebook, _CODEBOOK_RATE, batch_size)


def quantization_recipe(options: JobOptions, epochs: Epochs, batch_size: int) -> Recipe:
    """Rounded weights learn from the float teacher at a rate that falls from the start.

    Gradients are cut: norms are folded and no longer hold back what a step does to the layers
    behind, and with few bits the first gradients are tens to thousands long.
    """
    recipe = _touching_up(options, epochs.quantization, _QUANTIZATION_RATE, batch_size)
    return replace(recipe, gradient_norm=_QUANTIZATION_GRADIENT)


def _touching_up(options: JobOptions, epochs: int, rate: float, batch_size: int) -> Recipe:
    return replace(
        _recipe(options, epochs, rate, batch_size),
        distillation=0.0 if options.distill == "none" else _DISTILLATION,
        attention=_ATTENTION if options.distill == "features" else 0.0,
        warmup_share=0.0,
    )


def _codebook_epochs(options: JobOptions, steps_per_epoch: int) -> int:
    if options.codebook is None:
        return 0
    return _or(options.codebook_epochs, _at_least(5, 150, steps_per_epoch))


def _recipe(options: JobOptions, epochs: int, rate: float, batch_size: int) -> Recipe:
    """What all stages share: the rate for their batch size, and the regularizer."""
    decay = _WEIGHT_DECAY[options.regularizer]
    return Recipe(
        epochs,
        _rate(options, rate, batch_size),
        weight_decay=decay if options.weight_decay is None else options.weight_decay,
        regularizer=options.regularizer,
    )


def _warmup_share(options: JobOptions, of_one_cycle: float) -> float:
    return of_one_cycle if options.schedule == "one-cycle" else 0.0


def _rate(options: JobOptions, at_reference_batch: float, batch_size: int) -> float:
    if options.learning_rate is not None:
        return options.learning_rate
    return at_reference_batch * min(1.0, batch_size / _REFERENCE_BATCH)


def _at_least(epochs: int, steps: int, steps_per_epoch: int) -> int:
    return max(epochs, math.ceil(steps / max(steps_per_epoch, 1)))


def _or(value: int | None, otherwise: int) -> int:
    return otherwise if value is None else value
