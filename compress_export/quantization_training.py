"""The quantization-aware step: the network for the board trains as its files will answer."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from compress_export.schedule import quantization_recipe

if TYPE_CHECKING:
    from torch import Tensor, nn

    from compress_export.job import Job
    from compress_export.options import JobOptions
    from compress_export.task import Task
    from compressor.quantization.fake import FakeQuantized
    from compressor.quantization.scheme import Scheme


@dataclass(frozen=True)
class QuantizationFigures:
    """What training with rounding did; `quantization_training` in report.json.

    Attributes:
        precision: that the network was trained for.
        format: whose rules of rounding it was trained with.
        epochs: of training.
        validation_score_float: mean of the metric, a fraction, of the network before.
        validation_score_rounded: the same of that network, rounded as its files are.
        validation_score: the same, rounded, after training.
    """

    precision: str
    format: str
    epochs: int
    validation_score_float: float
    validation_score_rounded: float
    validation_score: float

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> QuantizationFigures:
        return cls(**entry)

    @property
    def line(self) -> str:
        """For people."""
        float_score, rounded, trained = (
            f"{100 * score:.2f}"
            for score in (
                self.validation_score_float,
                self.validation_score_rounded,
                self.validation_score,
            )
        )
        return (
            f"trained for {self.precision} {self.format}: validation {float_score} % in float, "
            f"rounded {rounded} %, after {self.epochs} epochs {trained} %"
        )


def refuse_branches(options: JobOptions, task: Task) -> None:
    """Refuse `--qat-epochs` for a network whose files compute something else than it does.

    Export merges branches. A merged network can't be trained in the place of the one with branches:
    it isn't of that one's class any more, and a saved network is.

    Raises:
        UsageError: merging changes more than batch norms, which training folds itself.
    """
    from compress_export.errors import UsageError
    from exporters.prepare import merged_copy, plain_copy

    merged = merged_copy(task.model, task.input_shape, lambda _: None)
    if _operators(merged, task.example()) != _operators(plain_copy(task.model), task.example()):
        raise UsageError(
            f"--qat-epochs {options.qat_epochs}: {task.architecture} has branches, which its files "
            "merge: they would round other layers than training did; leave --qat-epochs out"
        )


def _operators(network: nn.Module, example: Tensor) -> list[str]:
    """What is computed, in order, but for batch norms that are folded into convolutions."""
    from compressor.quantization.calls import written
    from compressor.quantization.points import folded_norms

    calls, outputs = written(network, example)
    folded = {pair.norm_call for pair in folded_norms(network, calls, outputs)}
    return [call.name for n, call in enumerate(calls) if call.sources and n not in folded]


def train_for_files(job: Job) -> None:
    """Fine-tune the slim network (or the baseline, where nothing was pruned) with rounding.

    `job.pruned` is then the trained network, in float: its files round it as it was trained to be
    rounded. `job.quantization` says what that did.
    """
    from compress_export.pruning import Pruned
    from compress_export.tuning import tune
    from compressor.training import evaluate

    task, log = job.task, job.log
    before = job.pruned or Pruned(job.baseline, job.baseline_score, 0.0, ())
    images = task.images("quantization")
    network = copy.deepcopy(before.model)
    with log.timed("quantization training"):
        fake = rounded_as_files(job, network)
        rounded = evaluate(fake, images.validation(), task.compute, task.objective)
        recipe = quantization_recipe(job.options, job.epochs, task.batch_size)
        score = tune(job, fake, "quantization", recipe)
    job.pruned = replace(before, model=network, validation_score=score)
    job.quantization = QuantizationFigures(
        job.exports.precision,
        job.exports.formats[0],
        recipe.epochs,
        before.validation_score,
        rounded,
        score,
    )
    log.say(f"quantization: {job.quantization.line}")


def rounded_as_files(job: Job, network: nn.Module) -> FakeQuantized:
    """Return a network that answers as the job's files will; its norms are folded in place."""
    from compressor.quantization.fake import FakeQuantized
    from exporters.clipping import Grid
    from exporters.ranges import Observe, find_ranges

    task, method = job.task, job.board.quantization.calibration

    def find(
        observe: Observe, bits: int, symmetric: bool, exact: Collection[str]
    ) -> Mapping[str, tuple[float, float]]:
        return find_ranges(observe, method, Grid(bits, symmetric), exact)

    return FakeQuantized(
        network,
        scheme_of(job),
        calibration_tensors(task),
        task.example(),
        None if method == "minmax" else find,
    )


def scheme_of(job: Job) -> Scheme:
    """Return how the files of a job round.

    With both formats, ONNX's rules count. Where the board has the same for TFLite, its grids are
    the same but for the outputs', which are float in ONNX, and those of 16 bits.
    """
    from compressor.quantization.scheme import Scheme

    rules = job.board.quantization
    by_format = {"onnx": rules.onnx, "tflite": rules.tflite}
    return Scheme.of(job.exports.precision, by_format[job.exports.formats[0]])


def calibration_tensors(task: Task) -> Callable[[], Iterator[Tensor]]:
    """Return what starts the calibration samples as tensors (B, 3, H, W)."""

    def batches() -> Iterator[Tensor]:
        import torch

        return (torch.from_numpy(batch) for batch in task.calibration_stream())

    return batches
