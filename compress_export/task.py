"""What is to be compressed: network, images, preprocessing, and the arithmetic to train with."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from compress_export.data import (
    ImageData,
    ImageSet,
    Preprocessing,
    calibration_batches,
    calibration_indices,
    eval_batches,
    load_data,
    train_batches,
)
from compress_export.data.preprocessing import saved_input
from compress_export.data.splits import VALIDATION_SHARE, are_classes, strata
from compress_export.judging import load_objective
from compress_export.networks import architecture_of, load_original, load_teacher
from compress_export.options import JobOptions
from compress_export.user_paths import refuse_unreachable
from compressor.errors import InputError
from compressor.models import default_input

if TYPE_CHECKING:
    import torch
    from torch import nn

    from compressor.compute import Compute
    from compressor.objective import Objective

    Batch = tuple[torch.Tensor, torch.Tensor]

MAX_BATCH_SIZE = 128
_BATCHES_OF_A_SMALL_SET = 20


@dataclass(frozen=True)
class Task:
    """One job's network and images.

    Attributes:
        architecture: name or `package.module:factory` of the network.
        model: the network, with the given weights where there were any.
        trained: weights were given.
        data: the images.
        preprocessing: what happens to pixels before the network.
        batch_size: images per training step.
        augment: images are shifted while training.
        flip: images are mirrored too.
        calibration: indices into the training images.
        compute: device and arithmetic.
        seed: of everything random.
        objective: how outputs are judged.
        teacher: what the slim network is distilled from; None is the original.
    """

    architecture: str
    model: nn.Module
    trained: bool
    data: ImageData
    preprocessing: Preprocessing
    batch_size: int
    augment: bool
    flip: bool
    calibration: NDArray[np.int64]
    compute: Compute
    seed: int
    objective: Objective
    teacher: nn.Module | None = None

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Shape of one input image, (C, H, W)."""
        return (3, self.preprocessing.size, self.preprocessing.size)

    def example(self) -> torch.Tensor:
        """Return a blank input, shape (1, C, H, W)."""
        import torch

        return torch.zeros(1, *self.input_shape)

    def images(self, stage: str) -> StageImages:
        """Return the training and validation images; every stage has its own order of batches."""
        return StageImages(self, self.seed + sum(stage.encode()) * 1009)

    def calibration_stream(self) -> Iterator[NDArray[np.float32]]:
        """Stream the calibration samples, float32 (B, 3, H, W), evaluation preprocessing."""
        return calibration_batches(self.data.train, self.preprocessing, self.calibration)

    def validation_stream(self) -> Iterator[NDArray[np.float32]]:
        """Stream the validation images like the calibration samples."""
        for x, _ in eval_batches(self.data.validation, self.preprocessing):
            yield x.numpy()

    def test_batches(self) -> Iterator[Batch]:
        """Stream the test images; read once, at the end."""
        return eval_batches(self.data.test, self.preprocessing)


@dataclass(frozen=True)
class StageImages:
    """The images as `compressor.training.Images` wants them."""

    task: Task
    seed: int

    @property
    def steps_per_epoch(self) -> int:
        """Batches in one epoch; a last batch of one image is left out."""
        full, rest = divmod(len(self.task.data.train), self.task.batch_size)
        return full + (rest > 1)

    def train(self, epoch: int) -> Iterable[Batch]:
        """Return one epoch's augmented batches, determined by seed and epoch.

        What the network itself draws in that epoch (dropout, stochastic depth) starts from them
        too, so that a resumed run equals the undisturbed one.
        """
        import torch

        task = self.task
        torch.manual_seed((self.seed * 1_000_003 + epoch) % 2**63)
        return train_batches(
            task.data.train,
            task.preprocessing,
            task.batch_size,
            self.seed,
            epoch,
            task.augment,
            task.flip,
        )

    def validation(self) -> Iterable[Batch]:
        """Return the validation images in order."""
        return eval_batches(self.task.data.validation, self.task.preprocessing)


def load_task(
    options: JobOptions,
    say: Callable[[str], None] = lambda line: None,
    progress: Callable[[int, int], None] | None = None,
) -> Task:
    """Load network and images; nearly every mistake of the user's shows here, before any work.

    Args:
        say: is told what the data is.
        progress: called with the number of images decoded and the number of all.

    Raises:
        InputError: no such network, weights, images or functions, or they don't belong together.
    """
    import torch

    from compressor.compute import Compute

    try:
        compute = Compute.choose(options.device)
    except (ValueError, RuntimeError) as error:
        raise InputError(str(error).splitlines()[0]) from error
    refuse_unreachable("--weights", options.weights)
    refuse_unreachable("--teacher", options.teacher)
    objective = load_objective(options.loss, options.metric)
    torch.manual_seed(options.seed)
    architecture = architecture_of(options.model, options.weights)
    preprocessing = _preprocessing(options, architecture, say)
    data = load_data(
        options.data,
        input_size=preprocessing.size,
        seed=options.seed,
        strict=options.strict,
        skip_broken=options.skip_broken,
        validation_share=options.validation_share or VALIDATION_SHARE,
        data_root=options.data_root,
        progress=progress,
    )
    say(
        f"data: {data.description}: {len(data.train)} training, {len(data.validation)} validation, "
        f"{len(data.test)} test images, {len(data.classes)} {_named(data)}"
        + (f", {len(data.skipped)} broken left out" if data.skipped else "")
    )
    model = load_original(options, len(data.classes), say)
    example = torch.zeros(1, 3, preprocessing.size, preprocessing.size)
    augment, flip = _augmentation(options, data)
    return Task(
        architecture=architecture,
        model=model,
        trained=options.weights is not None,
        data=data,
        preprocessing=preprocessing,
        batch_size=options.batch_size or _batch_size(data.train),
        augment=augment,
        flip=flip,
        calibration=calibration_indices(
            strata(data.train.labels), options.calibration_samples, options.seed
        ),
        compute=compute,
        seed=options.seed,
        objective=objective,
        teacher=load_teacher(options, model, architecture, len(data.classes), example),
    )


def _preprocessing(
    options: JobOptions, architecture: str, say: Callable[[str], None]
) -> Preprocessing:
    """What the user says, else what a saved network was trained with, else what is usual."""
    folder = options.weights if options.weights is not None and options.weights.is_dir() else None
    saved = saved_input(folder) if folder is not None else None
    usual = saved or default_input(architecture)
    chosen = Preprocessing(
        size=options.input_size or usual.size,
        mean=options.mean or usual.mean,
        std=options.std or usual.std,
    )
    if saved is not None and chosen != saved:
        say(
            f"notice: {folder} was trained with --input-size {saved.size} --mean "
            f"{_listed(saved.mean)} --std {_listed(saved.std)}; what was given counts"
        )
    return chosen


def _listed(values: tuple[float, ...]) -> str:
    return ",".join(f"{value:g}" for value in values)


def _named(data: ImageData) -> str:
    return "classes" if are_classes(data.train.labels) else "outputs"


def _augmentation(options: JobOptions, data: ImageData) -> tuple[bool, bool]:
    """Return whether images are shifted and whether they are mirrored while training."""
    if are_classes(data.train.labels):
        wanted = options.augment
        flip = wanted == "crop+flip" or (wanted == "auto" and data.flip_allowed)
        return wanted != "none", flip
    if options.augment in ("crop", "crop+flip"):
        raise InputError(
            f"--augment {options.augment}: the labels of {data.name} are no classes, and would not "
            "move along with the image; augment in the function that makes them"
        )
    return False, False


def _batch_size(train: ImageSet) -> int:
    """Give a small set enough steps per epoch: a power of two, at most 128."""
    size = MAX_BATCH_SIZE
    while size > 16 and len(train) / size < _BATCHES_OF_A_SMALL_SET:
        size //= 2
    return size
