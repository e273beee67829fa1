"""What the pruning stage measures to meet its limits. A resumed run reads it instead."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from compress_export.benching import LATENCY_RUNS
from compress_export.corrections import Met, meet
from compress_export.latency_tables import latency_tables
from compress_export.latency_target import files_p90_ms, no_tables, why_not_searchable
from compress_export.targets import BYTES_PER_VALUE, LATENCY, byte_limits, channel_step
from compress_export.whole_files import write_whole

if TYPE_CHECKING:
    from torch import Tensor, nn

    from compress_export.job import Job
    from compressor.cost import Limits, NetworkCosts
    from compressor.graph import ChannelGraph, Keep
    from compressor.methods.method import Choice
    from exporters import Exported


def unpruned_p90_ms(job: Job) -> dict[str, float] | None:
    """Measure the unpruned files that go to the board: format -> p90 in ms.

    Returns:
        None where no budget asks for it, or this machine can't speak for the board.
    """
    if LATENCY not in job.board.budgets.limits():
        return None
    reason = why_not_searchable(job.board, job.exports.formats) or no_tables(job.exports.precision)
    if reason is not None:
        job.log.say(f"{LATENCY} does not steer the search: {reason}")
        return None
    note = job.work / "latency.json"
    if not note.exists():
        with job.log.timed("limits"):
            _keep(note, _measure_unpruned(job))
    found: dict[str, float] = json.loads(note.read_text(encoding="utf-8"))
    listing = ", ".join(f"{name} {ms:.3g} ms" for name, ms in found.items())
    job.log.say(f"latency of the unpruned files (p90): {listing}")
    return found


def costs_with_latency(job: Job, graph: ChannelGraph, p90_ms: dict[str, float]) -> NetworkCosts:
    """Return the unpruned network's costs with tables of its layers' latencies.

    Args:
        p90_ms: of its files by format, which the tables are made to agree with.
    """
    from compressor.cost import NetworkCosts, as_tensor

    formats, precision = job.exports.formats, job.exports.precision
    with job.log.timed("limits"):
        tables = latency_tables(
            graph,
            job.board,
            formats,
            precision=precision,
            threads=job.options.threads or 1,
            say=job.log.say,
        )
    costs = NetworkCosts(graph, *BYTES_PER_VALUE[precision], tables)
    return costs.calibrated(as_tensor(graph.all_kept()), [p90_ms[name] for name in formats])


def meet_limits(
    job: Job, choice: Choice, graph: ChannelGraph, limits: Limits, images: Tensor, note: Path
) -> tuple[Keep, Limits]:
    """Return the channels with which the exported files meet the limits, and corrected limits.

    Weights don't matter to latency and size, so this comes before fine-tuning. MACs need no
    measurement, nor do bytes where no files are wanted.

    Args:
        graph: of the unpruned network.
        images: a few inputs that cuts are checked with, shape (N, C, H, W).
        note: file that keeps the outcome for a resumed run.
    """
    from compressor import ranks
    from compressor.decore.projection import TargetError, project

    files_wanted = "quantize" in job.options.stages
    if "latency_ms" not in limits.limits and not (files_wanted and limits.limits.keys() - {"macs"}):
        return choice.keep, limits
    if note.exists():
        return _read(note, limits, graph)
    found: Met | None = None
    step = channel_step(job.board, job.exports.precision)

    def choose(bound: Limits) -> Keep:
        return project(choice.ranking, graph, bound, step)

    def correct(keep: Keep, bound: Limits) -> Limits:
        return _corrected(job, choice.left.cut(keep, images)[0], keep, bound)

    def measured() -> dict[str, Any]:
        nonlocal found
        try:
            found = meet(choose, limits, correct, job.log.say)
        except TargetError as error:
            return {"missed": (str(error), error.worst_ratio)}
        return _figures(found)

    with job.log.timed("limits"):
        figures = ranks.from_first(measured)
    if "missed" in figures:
        raise TargetError(*figures["missed"])
    _keep(note, figures)
    return _read(note, limits, graph) if found is None else (found.keep, found.limits)


def _corrected(job: Job, network: nn.Module, keep: Keep, limits: Limits) -> Limits:
    """Export a network, and return the limits in agreement with its files."""
    from compressor.cost import Limits, as_tensor

    costs = limits.costs
    with tempfile.TemporaryDirectory() as folder:
        files = _export(job, network, "slim", Path(folder))
        if "latency_ms" in limits.limits:
            p90_ms = _timed(job, Path(folder), files)
            measured_ms = [p90_ms[name] for name in job.exports.formats]
            costs = costs.calibrated(as_tensor(keep), measured_ms)
    in_files = byte_limits(job.board.budgets.limits(), costs, as_tensor(keep), files)
    # At least one byte: that nothing is left is for `project` to say.
    return Limits(
        costs,
        {
            name: max(1.0, in_files[name]) if name in in_files else limit
            for name, limit in limits.limits.items()
        },
    )


def _measure_unpruned(job: Job) -> dict[str, float]:
    files = [file for file in job.reference if file.precision == job.exports.precision]
    if files:
        return _timed(job, job.folder.staged / "reference", files)
    with tempfile.TemporaryDirectory() as folder:
        files = _export(job, job.baseline, "baseline", Path(folder))
        return _timed(job, Path(folder), files)


def _export(job: Job, network: nn.Module, stage: str, folder: Path) -> list[Exported]:
    silent = replace(job.exports, say=lambda line: None)
    return list(silent.write(network, stage, folder, [job.exports.precision]))


def _timed(job: Job, folder: Path, files: Sequence[Exported]) -> dict[str, float]:
    return files_p90_ms(
        job.exports,
        folder,
        files,
        threads=job.options.threads or 1,
        runs=job.options.latency_runs or LATENCY_RUNS,
    )


def _keep(note: Path, figures: Mapping[str, Any]) -> None:
    note.parent.mkdir(parents=True, exist_ok=True)
    write_whole(note, json.dumps(figures))


def _figures(found: Met) -> dict[str, Any]:
    from compressor.cost import as_tensor

    limits = found.limits
    measured_ms = None
    if "latency_ms" in limits.limits:
        measured_ms = limits.costs.latencies_ms(as_tensor(found.keep)).tolist()
    return {
        "kept": np.flatnonzero(found.keep).tolist(),
        "limits": dict(limits.limits),
        "measured_ms": measured_ms,
    }


def _read(note: Path, limits: Limits, graph: ChannelGraph) -> tuple[Keep, Limits]:
    from compressor.cost import Limits, as_tensor

    figures = json.loads(note.read_text(encoding="utf-8"))
    keep = np.zeros(graph.class_count, dtype=np.bool_)
    keep[figures["kept"]] = True
    costs = limits.costs
    if figures["measured_ms"] is not None:
        costs = costs.calibrated(as_tensor(keep), figures["measured_ms"])
    return keep, Limits(costs, figures["limits"])
