"""What is known of a finished run: report.json, and of DIR/evidence whatever is there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compress_export.entries import goes_to_the_board, score_of
from compress_export.errors import UsageError
from compress_export.evidence import (
    AGENTS,
    ANSWERS,
    CHANGED,
    EVIDENCE,
    LATENCY,
    LAYERS,
    MEMORY,
    MOST_CHANGED,
    TORCH_BASELINE,
)
from compress_export.outputs import FLEET_REPORT
from compress_export.shown import drawable, printable_tree
from runtime_bench.manifest import inside
from runtime_bench.npz import read_arrays
from runtime_bench.plain_json import read_json

Report = Mapping[str, Any]

_MOST_ENTRIES = 5000
"""Of anything that a picture shows one by one; deep networks have some hundred layers."""
_MOST_RUNS = 2**20
"""Of one file, timed; and operators of one file."""
_MOST_VALUES = 2**24
"""Of one changed image."""


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
        return [entry for entry in self.artifacts if goes_to_the_board(entry)]

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


@contextmanager
def as_written(*folders: Path) -> Iterator[None]:
    """Whatever surprises the block is in the folders' files, which may come from elsewhere.

    Raises:
        UsageError: in place of any other error.
    """
    try:
        yield
    except (UsageError, PermissionError):
        raise
    except Exception as error:
        names = ", ".join(map(str, folders))
        cause = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        raise UsageError(
            f"{names}: no page can be made of report.json and {EVIDENCE}/ ({cause}); was it "
            "written by another version, or damaged?"
        ) from error


def run_folders(folder: Path) -> list[Path]:
    """Return the folders of a fleet's boards, or the folder itself, which is that of one run.

    Raises:
        Exception: as `read_run` does, for a fleet.json that is none.
    """
    fleet = folder / FLEET_REPORT
    if not fleet.is_file():
        return [folder]
    return [folder / inside(entry["folder"], str(fleet)) for entry in read_json(fleet)["fleet"]]


def read_run(folder: Path) -> RunFolder:
    """Read a run folder. Its texts are made fit for pictures, see `shown.drawable`.

    Raises:
        UsageError: it holds no report.json that this version can read.
        Exception: of nearly any type, for other content, see `as_written`.
    """
    report = _report(folder)
    evidence = folder / EVIDENCE
    shipped = [e["name"] for e in report["artifacts"] if goes_to_the_board(e)]
    after, answers = _answers(evidence / ANSWERS, shipped)
    run = RunFolder(
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
    _refuse_outsized(run)
    return run


def _refuse_outsized(run: RunFolder) -> None:
    """Raise ValueError for more than a page can show, and for answers that are no classes."""
    files = [*run.latency_ms.values(), *(curve["operators"] for curve in run.memory.values())]
    groups = [rung["groups"] for rung in run.agents]
    shown = (run.artifacts, run.report.get("checks", ()), run.agents, *groups, run.layers, files)
    if max(map(len, shown)) > _MOST_ENTRIES or max(map(len, files), default=0) > _MOST_RUNS:
        raise ValueError(f"more than {_MOST_ENTRIES} entries")
    if run.answers is not None:
        rows = np.stack([run.answers.labels, run.answers.before, run.answers.after])
        if rows.size and not 0 <= rows.min() <= rows.max() < max(len(run.classes), 1):
            raise ValueError("answers that are no classes")
    images = () if run.changed is None else run.changed.images
    if any(image.size > _MOST_VALUES for image in images) or len(images) > MOST_CHANGED:
        raise ValueError("changed images that are too many or too large")


def _report(folder: Path) -> Report:
    path = folder / "report.json"
    if not path.is_file():
        raise UsageError(f"{folder} holds no report.json: name the DIR of a finished run or fleet")
    try:
        report = read_json(path)
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} is no JSON: {error}") from None
    version = report.get("schema_version") if isinstance(report, dict) else None
    if version != 1:
        raise UsageError(f"{path} has schema_version {version}, this program reads 1")
    return dict(printable_tree(report, drawable))


def _json(path: Path, missing: Any) -> Any:
    return printable_tree(read_json(path), drawable) if path.is_file() else missing


def _classes(folder: Path) -> tuple[str, ...]:
    manifests = (folder / name / "manifest.json" for name in ("bundle", "reference"))
    for path in (path for path in manifests if path.is_file()):
        return tuple(str(name) for name in _json(path, {}).get("classes", ()))
    return ()


def _answers(path: Path, shipped: Sequence[str]) -> tuple[str, Answers | None]:
    if not path.is_file():
        return "", None
    found = read_arrays(path, {"labels", TORCH_BASELINE, *shipped})
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
    found = read_arrays(path, {"rows", "images"})
    return ChangedImages(tuple(found["rows"].tolist()), tuple(found["images"]))
