"""Several runs on one page: their files beside each other, and the settings that differ."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compress_export.entries import p90_ms, score_of
from compress_export.html_report.drawing import Chart, Table
from compress_export.html_report.figures import flat
from compress_export.html_report.rendering import render
from compress_export.html_report.run_folder import (
    RunFolder,
    as_written,
    read_run,
    run_folders,
)
from compress_export.html_report.tradeoff import Axis, Point, draw_tradeoff
from compress_export.html_report.words import (
    NONE,
    count_text,
    ms_text,
    percent_text,
    points_text,
    size_text,
)
from compress_export.shown import drawable
from compress_export.whole_files import write_whole

_NAMED = 6
"""So many runs are named with their verdicts in the page's first sentence."""


@dataclass(frozen=True)
class ComparedFile:
    """A file of a bundle, and the run that it comes from."""

    number: int
    name: str
    run: RunFolder
    entry: Mapping[str, Any]

    @property
    def verdict(self) -> str:
        """The run's."""
        return str(self.run.report["verdict"])

    @property
    def cells(self) -> Sequence[str]:
        """Size, score, score lost, latency, activations and MACs."""
        stages = self.run.report["stages"]
        score, before = score_of(self.entry), score_of(stages["baseline"])
        lost = None if score is None or before is None else 100 * (before - score)
        return (
            size_text(self.entry.get("size_bytes")),
            percent_text(score),
            NONE if lost is None else points_text(lost),
            ms_text(p90_ms(self.entry)),
            size_text(self.entry.get("activation_bytes")),
            count_text(stages.get("slim", stages["baseline"])["macs"]),
        )


def write_comparison(folders: Sequence[Path], out: Path) -> Path:
    """Write one page about several runs, and return its path.

    Args:
        folders: each the DIR of a finished job, or that of a fleet, which stands for its boards.

    Raises:
        UsageError: one of them has no report.json that this version can read.
    """
    with as_written(*folders):
        page = comparison_page(folders)
    return write_whole(out, page)


def comparison_page(folders: Sequence[Path]) -> str:
    """Return the page about several runs or fleets; for errors see `read_run`."""
    folders = [run for folder in folders for run in run_folders(folder)]
    runs, names = [read_run(folder) for folder in folders], run_names(folders)
    files = compared_files(runs, names)
    metrics = sorted({run.metric for run in runs})
    return render(
        "comparison.html.j2",
        title=f"{len(runs)} runs compared",
        sentence=_verdicts(runs, names),
        metric=" / ".join(metrics),
        rows=files,
        charts=_charts(files, metrics[0]) if len(metrics) == 1 else [],
        note=_note(runs),
        settings=differing_settings(runs, names),
    )


def _verdicts(runs: Sequence[RunFolder], names: Sequence[str]) -> str:
    """Of each of a few runs; of many, how often each."""
    verdicts = [str(run.report["verdict"]) for run in runs]
    if len(runs) <= _NAMED:
        return "; ".join(": ".join(pair) for pair in zip(names, verdicts, strict=True))
    return ", ".join(f"{count} {verdict}" for verdict, count in Counter(verdicts).most_common())


def run_names(folders: Sequence[Path]) -> list[str]:
    """Name runs by their folders, with as many parents as it takes to tell them apart."""
    paths = [folder.resolve() for folder in folders]
    for depth in range(1, max(len(path.parts) for path in paths)):
        names = [drawable("/".join(path.parts[-depth:])) for path in paths]
        if len(set(names)) == len(names):
            return names
    return [f"{drawable(path.name)} ({number})" for number, path in enumerate(paths, 1)]


def compared_files(runs: Sequence[RunFolder], names: Sequence[str]) -> list[ComparedFile]:
    """Return the files of all bundles, numbered from 1."""
    pairs = [
        (f"{name}: {entry['name']}", run, entry)
        for run, name in zip(runs, names, strict=True)
        for entry in run.shipped
    ]
    return [ComparedFile(number, *pair) for number, pair in enumerate(pairs, 1)]


def differing_settings(runs: Sequence[RunFolder], names: Sequence[str]) -> Table:
    """Return options, board, host and libraries whose values are not the same in all runs."""
    found = [_settings(run.report) for run in runs]
    keys = list(dict.fromkeys(key for settings in found for key in settings))
    rows = [
        (key, *(settings.get(key, NONE) for settings in found))
        for key in keys
        if len({settings.get(key, NONE) for settings in found}) > 1
    ]
    return Table(("setting", *names), rows)


def _settings(report: Mapping[str, Any]) -> dict[str, str]:
    environment = report.get("environment", {})
    groups = (
        ("", {"board": report.get("board"), "metric": report.get("metric")}),
        ("", report.get("options") or {}),
        ("host: ", environment.get("host") or {}),
        ("", environment.get("libraries") or {}),
    )
    return {
        f"{prefix}{key}": flat(value) for prefix, group in groups for key, value in group.items()
    }


def _charts(files: Sequence[ComparedFile], metric: str) -> list[Chart]:
    charts = []
    for key, axis in (
        ("size", Axis("file size", "file size, KiB", 2**-10, size_text, None)),
        ("latency", Axis("latency", "latency p90, ms for one image", 1.0, ms_text, None)),
    ):
        points = []
        for file in files:
            cost = p90_ms(file.entry) if key == "latency" else file.entry.get("size_bytes")
            score = score_of(file.entry)
            if cost and score is not None:
                kind = str(file.entry["format"])
                points.append(Point(file.number, file.name, kind, cost, score, True))
        if points:
            name = f"accuracy-{key}"
            charts.append(draw_tradeoff(name, points, axis, metric, None, front=True))
    return charts


def _note(runs: Sequence[RunFolder]) -> str:
    note = (
        "Files of the bundles. The dashed line of a picture joins those that no other one beats in "
        "both. Latencies were taken in different runs, so small differences mean nothing"
    )
    hosts = {flat((run.report.get("environment") or {}).get("host")) for run in runs}
    return f"{note}; the runs were on different machines." if len(hosts) > 1 else f"{note}."
