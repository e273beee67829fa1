"""Less accuracy lost to rounding, without training: what helps is found out and kept.

Everything is measured on the validation images through the fake-quantized network, which answers
as the files will. The network itself stays as it was; a copy goes into the quantized files, its
branches merged as all files have them.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from compress_export.first_aid_figures import FirstAid, LayerCost, Mixture, Remedy
from compress_export.quantization_training import (
    calibration_tensors,
    rounded_as_files,
    scheme_of,
)
from compress_export.targets import DEFAULT_MAX_DROP

if TYPE_CHECKING:
    from torch import nn

    from compress_export.job import Job
    from compressor.quantization.fake import FakeQuantized
    from compressor.quantization.scheme import Scheme
    from compressor.quantization.sensitivity import Judged, Sensitivity


@dataclass(frozen=True)
class Aided:
    """A network for the quantized files.

    Attributes:
        model: in float, like the one it was made from but for merged branches.
        float_layers: that its files leave in float.
    """

    model: nn.Module
    float_layers: tuple[str, ...]


def can_aid(job: Job) -> bool:
    """Whether the job's files round something that first aid may change.

    Shared weights are left alone: equal weights would part.
    """
    from exporters.support import FLOATS

    rounds = job.exports.precision not in FLOATS
    return job.options.first_aid == "auto" and rounds and job.codebook is None


def give_first_aid(job: Job, network: nn.Module, float_score: float) -> dict[str, Aided]:
    """Try bias correction, equalization and layers in float; `job.first_aid` says what helped.

    Every format rounds by its own rules and has its own answer; formats that round alike share one.

    Args:
        network: that the files are made of; it is not changed.
        float_score: its validation score.

    Returns:
        Format -> what its quantized files are to be made of, but for formats that nothing helped.
    """
    from exporters.support import why_not_float_layers

    known: dict[tuple[Scheme, str | None], tuple[FirstAid, Aided | None] | None] = {}
    figures: list[FirstAid] = []
    aided: dict[str, Aided] = {}
    for format in job.exports.formats:
        own = replace(job, exports=replace(job.exports, formats=(format,)))
        alike = (scheme_of(own), why_not_float_layers(job.board, format))
        if alike not in known:
            known[alike] = _aid_format(own, network, float_score)
        if (found := known[alike]) is None:
            return {}
        figures.append(replace(found[0], format=format))
        if found[1] is not None:
            aided[format] = found[1]
    job.first_aid = tuple(figures)
    for line in (line for entry in figures for line in entry.lines):
        job.log.say(f"first aid: {line}")
    return aided


def _aid_format(
    job: Job, network: nn.Module, float_score: float
) -> tuple[FirstAid, Aided | None] | None:
    """What was tried for a job of one format, and what helped; None where torch can't round."""
    from compressor.errors import InputError
    from exporters.prepare import merged_copy

    scheme = scheme_of(job)
    try:
        network = merged_copy(network, job.task.input_shape, lambda _: None)
        fake = _rounded(job, network)
        plain = judged = _judge(job, fake)
    except InputError:
        raise
    except Exception as error:  # the network's own code, under a mode that it may not bear
        job.warnings.append(f"no first aid: the network can't be rounded in torch: {error}")
        return None
    remedies: list[Remedy] = []
    if not (scheme.per_channel_convolutions and scheme.per_channel_linear):
        other = _equalized(job, fake.network)
        if other is not None:
            found = _judge(job, other)
            remedies.append(_remedy("equalization", found, judged))
            fake, judged = (other, found) if remedies[-1].kept else (fake, judged)
    found = _judge(job, _corrected(job, fake.network))
    remedies.append(_remedy("bias correction", found, judged))
    corrects = remedies[-1].kept
    judged = found if corrects else judged
    budget = job.board.budgets.limits().get("accuracy_drop_points", DEFAULT_MAX_DROP)
    figures = FirstAid(
        job.exports.precision,
        job.exports.formats[0],
        float_score,
        plain.score,
        plain.loss,
        job.baseline_score - budget / 100,
        tuple(remedies),
    )
    if judged.score < _least(figures):
        figures = _with_layers_in_float(job, fake, figures, corrects)
    if not (figures.float_layers or any(remedy.kept for remedy in remedies)):
        return figures, None
    if corrects:
        fake = _corrected(job, fake.network, figures.float_layers)
    return figures, Aided(fake.network.cpu(), figures.float_layers)


def _least(figures: FirstAid) -> float:
    """The lowest score within the budget, as the verdict rounds: 0.90 less a point is 0.89."""
    from runtime_bench.verdict import SAME_POINTS

    return figures.wanted_score - SAME_POINTS / 100


def _with_layers_in_float(
    job: Job, fake: FakeQuantized, figures: FirstAid, corrects: bool
) -> FirstAid:
    """Measure what rounding each layer costs and find the cheapest ones to leave in float.

    Args:
        fake: without corrected biases.
        corrects: whether its files get them: every set of layers has its own.
    """
    from compressor.quantization.sensitivity import cheapest_within, sensitivities
    from exporters.support import why_not_float_layers

    if (reason := why_not_float_layers(job.board, figures.format)) is not None:
        return replace(figures, note=f"no layers left in float: {reason}")

    def rank() -> Sequence[Sensitivity]:
        job.log.say(f"first aid: measuring {len(fake.layers)} layers")
        return sensitivities(fake, lambda model: _judge(job, model))

    def judge(model: FakeQuantized) -> Judged:
        ready = _corrected(job, model.network, model.float_layers) if corrects else model
        return _judge(job, ready)

    search = cheapest_within(fake, judge, _least(figures), rank)
    chosen, note = search.chosen, ""
    if chosen is None:
        would = "only all of them" if search.ranking else "not even all of them"
        note = f"no layers left in float: {would} would bring the drop inside the budget"
    return replace(
        figures,
        layers=tuple(LayerCost(s.layer, s.alone, s.left, s.extra_bytes) for s in search.ranking),
        mixtures=tuple(
            Mixture(m.layers, m.extra_bytes, m.judged.score, m is chosen) for m in search.tried
        ),
        note=note,
    )


def _rounded(job: Job, network: nn.Module) -> FakeQuantized:
    """A copy that answers as the job's files will."""
    return rounded_as_files(job, copy.deepcopy(network).cpu())


def _equalized(job: Job, network: nn.Module) -> FakeQuantized | None:
    """The same with equalized channels; None where no layers can share them."""
    from compressor.quantization.equalization import equalize

    clone = copy.deepcopy(network).cpu()
    return _rounded(job, clone) if equalize(clone, job.task.example()) else None


def _corrected(job: Job, network: nn.Module, left: Collection[str] = ()) -> FakeQuantized:
    """The same with biases corrected for what is rounded, some layers left in float."""
    from compressor.quantization.bias_correction import correct_biases

    fake = _rounded(job, network)
    fake.float_layers = frozenset(left)
    correct_biases(fake, calibration_tensors(job.task))
    return fake


def _judge(job: Job, model: nn.Module) -> Judged:
    from compressor.quantization.sensitivity import Judged
    from compressor.training import evaluate_with_loss

    task = job.task
    images = task.images("first aid").validation()
    return Judged(*evaluate_with_loss(model, images, task.compute, task.objective))


def _remedy(name: str, found: Judged, before: Judged) -> Remedy:
    """A remedy is kept for a better score, or for a lower loss at the same score."""
    kept = (found.score, -found.loss) > (before.score, -before.loss)
    return Remedy(name, found.score, found.loss, kept)
