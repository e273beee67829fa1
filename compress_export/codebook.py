"""The codebook step: the network that goes to the board gets shared weights, and recovers."""

from __future__ import annotations

import lzma
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress_export.schedule import codebook_recipe
from compress_export.sizes import mib

if TYPE_CHECKING:
    from torch import nn

    from compress_export.job import Job
    from exporters import Exported
    from exporters.codebook_file import CodebookFile


@dataclass(frozen=True)
class CodebookFigures:
    """What sharing weights cost and saved; `codebook` in report.json.

    Attributes:
        entries: distinct weights that a layer may have.
        epochs: of fine-tuning.
        validation_score_dense: mean of the metric, a fraction, before weights were shared.
        validation_score_shared: the same before fine-tuning.
        validation_score: the same of the network that is left.
        fit: how the weights were found, one of `compressor.codebook.fitting.FITS`.
        path: of the codebook file in DIR; "" where no bundle was made.
        size_bytes: of that file, which is compressed already; None where there is none.
        expanded_bytes: of the tensors that it expands to.
        download_bytes: name of a file in the bundle -> its bytes as an .xz file.
    """

    entries: int
    epochs: int
    validation_score_dense: float
    validation_score_shared: float
    validation_score: float
    fit: str = "kmeans"
    path: str = ""
    size_bytes: int | None = None
    expanded_bytes: int | None = None
    download_bytes: Mapping[str, int] | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> CodebookFigures:
        return cls(**entry)

    @property
    def lines(self) -> list[str]:
        """For people: accuracy, and what is to be stored and sent."""
        dense, shared, tuned = (
            f"{100 * score:.2f}"
            for score in (
                self.validation_score_dense,
                self.validation_score_shared,
                self.validation_score,
            )
        )
        found = [
            f"{self.entries} weights a layer by {self.fit}: validation {dense} %, shared {shared} "
            f"%, after {self.epochs} epochs {tuned} %"
        ]
        if self.size_bytes is not None and self.expanded_bytes is not None:
            found.append(
                f"{self.path}: {mib(self.size_bytes)} MiB for {mib(self.expanded_bytes)} MiB of "
                "tensors"
            )
        for name, size_bytes in (self.download_bytes or {}).items():
            found.append(f"{name}: {mib(size_bytes)} MiB to download as .xz")
        return found


def share(job: Job, entries: int) -> None:
    """Give the slim network (or the baseline, where nothing was pruned) shared weights.

    `job.pruned` is then the network whose convolutions and linear layers have `entries` distinct
    weights each, its centroids fine-tuned; `job.codebook` says what that did.
    """
    from compress_export.pruning import Pruned
    from compress_export.tuning import tune
    from compressor.codebook.fitting import FITS
    from compressor.codebook.sharing import bake, share_weights
    from compressor.recalibrate import recalibrate
    from compressor.training import evaluate

    task, log = job.task, job.log
    before = job.pruned or Pruned(job.baseline, job.baseline_score, 0.0, ())
    images, fit = task.images("codebook"), job.options.codebook_fit or "kmeans"
    with log.timed("codebook"):
        shared = share_weights(before.model.cpu(), entries, fit=FITS[fit], seed=task.seed)
        recalibrate(shared, images, task.compute)
        at_once = evaluate(shared, images.validation(), task.compute, task.objective)
        recipe = codebook_recipe(job.options, job.epochs, task.batch_size)
        score = tune(job, shared, "codebook", recipe)
        dense = bake(shared.eval())
    job.pruned = replace(before, model=dense, validation_score=score)
    job.codebook = CodebookFigures(
        entries, recipe.epochs, before.validation_score, at_once, score, fit
    )
    log.say(f"codebook: {job.codebook.lines[0]}")


def write_file(model: nn.Module, stage: str, bundle: Path) -> CodebookFile:
    """Write a network with shared weights into the bundle, as STAGE.codebook."""
    from exporters.codebook_file import write_codebook_file

    state = {name: value.numpy() for name, value in model.cpu().state_dict().items()}
    return write_codebook_file(state, bundle / f"{stage}.codebook")


def with_sizes(
    figures: CodebookFigures, file: CodebookFile, bundle: Path, others: Sequence[Exported]
) -> CodebookFigures:
    """Add what the files take, on disk and sent.

    Args:
        file: lies in the bundle.
        others: the model files there.
    """
    return replace(
        figures,
        path=f"{bundle.name}/{file.path}",
        size_bytes=file.size_bytes,
        expanded_bytes=file.expanded_bytes,
        download_bytes={
            other.path: len(lzma.compress((bundle / other.path).read_bytes())) for other in others
        },
    )
