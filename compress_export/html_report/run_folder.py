"""What is known of a finished run: report.json, and of DIR/evidence whatever is there."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compress_export.errors import UsageError
from compress_export.evidence import (
    AGENTS,
    ANSWERS,
    CHANGED,
    EVIDENCE,
    LATENCY,
    LAYERS,
    MEMORY,
    TORCH_BASELINE,
)

Report = Mapping[str, Any]


@dataclass(frozen=True)
class Answers:
    """Classes of all test images, int64 (N,): the right ones and those of two networks."""

    labels: NDArray[np.int64]
    before: NDArray[np.int64]
    after: NDArray[np.int64]


@dataclass(frozen=True)
class ChangedImages:
    """A few test images whose answer changed: row in the test set, uint8 (H, W, 3)."""

    rows: tuple[int, ...]
    images: tuple[NDArray[np.uint8], ...]


@dataclass(frozen=True)
class RunFolder:
    """A run as the page sees it. What a job did not do, or an old one did not write, is empty.

    Attributes:
        classes: names, in the order of the outputs.
        agents: one summary per rung of the search, see `policy_trace.summarize`.
        layers: channels of each layer before and after.
        latency_ms: file -> every timed run.
        memory: file -> operators and the bytes alive while each runs.
        after: the file whose answers are in `answers`.
    """

    path: Path
    report: Report
    classes: tuple[str, ...]
    agents: Sequence[Mapping[str, Any]]
    layers: Sequence[Mapping[str, Any]]
    latency_ms: Mapping[str, Sequence[float]]
    memory: Mapping[str, Mapping[str, Any]]
    after: str
    answers: Answers | None
    changed: ChangedImages | None

    @property
    def artifacts(self) -> Sequence[Mapping[str, Any]]:
        """Files as they stand in report.json."""
        found: Sequence[Mapping[str, Any]] = self.report.get("artifacts", ())
        return found

    @property
    def shipped(self) -> list[Mapping[str, Any]]:
        """Those of the bundle."""
        return [entry for entry in self.artifacts if str(entry["path"]).startswith("bundle/")]

    @property
    def metric(self) -> str:
        """Name of the score, the user's own without its module."""
        return str(self.report.get("metric", "top-1")).rpartition(":")[2]

    def limit(self, budget: str) -> float | None:
        """The limit of a budget, in the unit of its name, where the board has one."""
        limits = [c["limit"] for c in self.report.get("checks", ()) if c["budget"] == budget]
        return limits[0] if limits else None

    @property
    def lowest_score(self) -> float | None:
        """The score that the accuracy budget still allows, a fraction."""
        drop = self.limit("accuracy_drop_points")
        baseline = score_of(self.report.get("stages", {}).get("baseline", {}))
        return None if drop is None or baseline is None else baseline - drop / 100


def score_of(entry: Mapping[str, Any]) -> float | None:
    """Top-1, or the mean of the user's metric, of a stage or file; a fraction."""
    score: float | None = entry.get("top1") if entry.get("score") is None else entry["score"]
    return score


def p90_ms(entry: Mapping[str, Any]) -> float | None:
    """The latency of a file that budgets are about."""
    return (entry.get("latency_ms") or {}).get("p90")


def read_run(folder: Path) -> RunFolder:
    """Read a run folder.

    Raises:
        UsageError: it holds no report.json that this version can read.
    """
    report = _report(folder)
    evidence = folder / EVIDENCE
    shipped = [e["name"] for e in report["artifacts"] if str(e["path"]).startswith("bundle/")]
    after, answers = _answers(evidence / ANSWERS, shipped)
    return RunFolder(
        path=folder,
        report=report,
        classes=_classes(folder),
        agents=_json(evidence / AGENTS, []),
        layers=_json(evidence / LAYERS, []),
        latency_ms=_json(evidence / LATENCY, {}),
        memory=_json(evidence / MEMORY, {}),
        after=after,
        answers=answers,
        changed=_changed(evidence / CHANGED),
    )


def _report(folder: Path) -> Report:
    path = folder / "report.json"
    if not path.is_file():
        raise UsageError(f"{folder} holds no report.json: name the DIR of a finished run")
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UsageError(f"{path} is no JSON: {error}") from None
    version = report.get("schema_version") if isinstance(report, dict) else None
    if version != 1:
        raise UsageError(f"{path} has schema_version {version}, this program reads 1")
    return dict(report)


def _json(path: Path, missing: Any) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else missing


def _classes(folder: Path) -> tuple[str, ...]:
    manifests = (folder / name / "manifest.json" for name in ("bundle", "reference"))
    for path in (path for path in manifests if path.is_file()):
        return tuple(str(name) for name in _json(path, {}).get("classes", ()))
    return ()


def _answers(path: Path, shipped: Sequence[str]) -> tuple[str, Answers | None]:
    if not path.is_file():
        return "", None
    with np.load(path, allow_pickle=False) as found:
        after = next((name for name in shipped if name in found), None)
        if after is None or TORCH_BASELINE not in found:
            return "", None
        labels, before, now = (
            found[name].astype(np.int64) for name in ("labels", TORCH_BASELINE, after)
        )
    return after, Answers(labels, before, now)


def _changed(path: Path) -> ChangedImages | None:
    if not path.is_file():
        return None
    with np.load(path, allow_pickle=False) as found:
        return ChangedImages(tuple(found["rows"].tolist()), tuple(found["images"]))
