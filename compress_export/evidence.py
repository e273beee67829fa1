"""DIR/evidence: what report.html shows beyond report.json. Every file is documented, with its keys,
in docs/report-html.md; each is there only where the job has something to put into it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import nn

    from compress_export.benching import Measured
    from compress_export.job import Job
    from compressor.graph import ChannelGraph

EVIDENCE = "evidence"
AGENTS, LAYERS, LATENCY, MEMORY = "agents.json", "layers.json", "latency.json", "memory.json"
ANSWERS, CHANGED = "answers.npz", "changed.npz"

TORCH_BASELINE, TORCH_SLIM = "torch baseline", "torch slim"

MOST_CHANGED = 12
"""Images whose answer changed that are kept; they are copies of the user's own test images."""


def write_evidence(job: Job, measured: Measured) -> None:
    """Write all that is known into DIR.run/staged/evidence."""
    folder = job.folder.staged / EVIDENCE
    folder.mkdir(exist_ok=True)
    if job.pruned is not None:
        _write_json(folder / LAYERS, _layers(job, job.pruned.model))
    if rungs := _agents(job.work):
        _write_json(folder / AGENTS, rungs)
    if files := [job.folder.staged / Path(file.folder).name / file.path for file in measured.files]:
        _write_json(folder / MEMORY, {path.name: _memory(path) for path in files})
    if measured.traces:
        _write_json(folder / LATENCY, {t.name: _rounded(t.times_ms) for t in measured.traces})
    if measured.answers:
        _write_answers(job, measured, folder)


def kept_channels(before: ChannelGraph, after: ChannelGraph) -> list[dict[str, Any]]:
    """Return every layer's channels in the order of execution; none where it is gone."""
    left = {layer.module: len(layer.out_classes) for layer in after.layers}
    return [
        {
            "layer": layer.module,
            "channels": len(layer.out_classes),
            "kept": left.get(layer.module, 0),
        }
        for layer in before.layers
    ]


def changed_images(
    labels: NDArray[np.int64], before: NDArray[np.int64], after: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return the images to show of those whose answer changed, (K,): lost, won, wrong twice.

    Two thirds of the places are for answers that were right, where there are as many; they are
    spread over the test images, which often stand class by class.
    """
    changed = before != after
    lost = np.flatnonzero(changed & (before == labels))
    won = np.flatnonzero(changed & (after == labels))
    neither = np.flatnonzero(changed & (before != labels) & (after != labels))
    others = len(won) + len(neither)
    lost = _spread(lost, max(MOST_CHANGED * 2 // 3, MOST_CHANGED - others))
    won = _spread(won, MOST_CHANGED - len(lost))
    return np.concatenate([lost, won, _spread(neither, MOST_CHANGED - len(lost) - len(won))])


def _spread(rows: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Return at most so many of the rows, evenly spaced."""
    if len(rows) <= count:
        return rows
    return rows[np.arange(count) * len(rows) // max(count, 1)]


def _layers(job: Job, slim: nn.Module) -> list[dict[str, Any]]:
    from compressor.graph import channel_graph

    example = job.task.example()
    return kept_channels(channel_graph(job.baseline, example), channel_graph(slim, example))


def _agents(run: Path) -> list[dict[str, Any]]:
    from compress_export.pruning import AGENTS_FILE

    found = sorted(run.glob(f"rung-*/{AGENTS_FILE}"))
    return [
        {"rung": path.parent.name, **json.loads(path.read_text(encoding="utf-8"))} for path in found
    ]


def _memory(path: Path) -> dict[str, Any]:
    """Return the operators of a file and the bytes that are alive while each runs."""
    if path.suffix == ".onnx":
        from exporters.inspect_onnx import onnx_schedule

        schedule = onnx_schedule(path)
    else:
        from exporters.inspect_tflite import tflite_schedule

        schedule = tflite_schedule(path)
    live = schedule.live_bytes()
    # what only makes constants is done once, ahead of time
    steps = [index for index, step in enumerate(schedule.steps) if step.outputs] or [0]
    return {
        "operators": [schedule.steps[index].name for index in steps if schedule.steps],
        "live_bytes": [live[index] for index in steps],
    }


def _write_answers(job: Job, measured: Measured, folder: Path) -> None:
    test = job.task.data.test
    answers = dict(measured.answers)
    answers |= {t.name: np.array(t.predictions) for t in measured.traces if t.predictions}
    small = np.min_scalar_type(len(job.task.data.classes))
    arrays: dict[str, Any] = {name: found.astype(small) for name, found in answers.items()}
    np.savez_compressed(folder / ANSWERS, labels=test.labels.astype(small), **arrays)
    shipped = [file.name for file in measured.files if Path(file.folder).name == "bundle"]
    if after := next((name for name in shipped if name in answers), None):
        rows = changed_images(test.labels, answers[TORCH_BASELINE], answers[after])
        images = test.read(rows).transpose(0, 2, 3, 1)  # (K, H, W, 3)
        np.savez_compressed(folder / CHANGED, rows=rows, images=images, after=after)


def _rounded(times_ms: Sequence[float]) -> list[float]:
    return [float(f"{ms:.4g}") for ms in times_ms]


def _write_json(path: Path, content: Mapping[str, Any] | Sequence[Any]) -> None:
    path.write_text(json.dumps(content, allow_nan=False) + "\n", encoding="utf-8")
