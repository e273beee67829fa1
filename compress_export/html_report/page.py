"""DIR/report.html: one run, told from the verdict to the command that repeats it.

A fleet's DIR gets the comparison of its boards under that name.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compress_export.codebook import CodebookFigures
from compress_export.entries import p90_ms, score_of
from compress_export.first_aid_figures import FirstAid
from compress_export.html_report import figures
from compress_export.html_report.answers import (
    MOST_CLASSES,
    ChangedImage,
    changed_images,
    draw_confusion,
    draw_losers,
)
from compress_export.html_report.channels import draw_certainty, draw_groups, draw_layers
from compress_export.html_report.compare import comparison_page
from compress_export.html_report.drawing import Chart, Table
from compress_export.html_report.measured import draw_latency, draw_memory
from compress_export.html_report.rendering import render
from compress_export.html_report.run_folder import (
    RunFolder,
    as_written,
    read_run,
    run_folders,
)
from compress_export.html_report.tradeoff import Axis, Point, draw_tradeoff
from compress_export.html_report.words import NONE, ms_text, percent_text, size_text
from compress_export.quantization_training import QuantizationFigures
from compress_export.reached import Reached
from compress_export.whole_files import write_whole

PAGE = "report.html"


@dataclass(frozen=True)
class ChartSection:
    """Pictures under one heading.

    Attributes:
        numbers: the pictures number files, so a list has to name them.
    """

    key: str
    title: str
    charts: Sequence[Chart]
    numbers: bool = False
    images: Sequence[ChangedImage] = ()


@dataclass(frozen=True)
class Decision:
    """Something that the job chose or found out, and from what."""

    title: str
    lines: Sequence[str]
    table: Table | None = None


def write_html_report(run_folder: Path) -> Path:
    """Write DIR/report.html from DIR/report.json and DIR/evidence, and return its path.

    Args:
        run_folder: DIR of a finished job or fleet; parts that it lacks are left out of the page.

    Raises:
        UsageError: there is no report.json that this version can read.
    """
    return write_report_to(run_folder, run_folder / PAGE)


def write_report_to(run_folder: Path, path: Path) -> Path:
    """Write the page of a run to another place, and return that.

    Raises:
        UsageError: as `write_html_report` does.
    """
    with as_written(run_folder):
        page = _page(run_folder)
    return write_whole(path, page)


def redraw(run_folder: Path, say: Callable[[str], None]) -> None:
    """Write DIR/report.html, or say why not: long work must not be lost over a picture of it."""
    try:
        write_whole(run_folder / PAGE, _page(run_folder))
    except Exception as error:
        say(f"{PAGE} was not written, {type(error).__name__}: {error}")


def _page(folder: Path) -> str:
    if run_folders(folder) == [folder]:
        return report_page(read_run(folder))
    return comparison_page([folder])


def report_page(run: RunFolder) -> str:
    """Return the page of a run."""
    report = run.report
    charts = chart_sections(run)
    decisions, devices = _decisions(report), _devices(report)
    sections = [("budgets", "Budgets"), ("files", "Files")]
    sections += [(section.key, section.title) for section in charts]
    sections += [("decisions", "Decisions and findings")] if decisions else []
    sections += [("devices", "On the device")] if devices else []
    return render(
        "report.html.j2",
        title=f"{report['model']} for {report['board']}: {report['verdict']}",
        model=report["model"],
        board=report["board"],
        data=report["data"],
        target=report.get("target", ""),
        verdict=figures.verdict_of(report),
        tiles=figures.tiles(run),
        tiles_note=figures.tiles_note(run),
        sections=[*sections, ("repeat", "How to repeat it")],
        budget_rows=figures.check_rows(report.get("checks", ())),
        check_notes=figures.check_notes(report.get("checks", ())),
        warnings=report.get("warnings", ()),
        metric=run.metric,
        file_rows=figures.file_rows(run),
        files_note=_files_note(run),
        networks=figures.networks(run),
        chart_sections=charts,
        after=run.after,
        changed_sentence=_changed_sentence(run),
        decisions=decisions,
        devices=devices,
        command=shlex.join(report.get("command", ())),
        environment=figures.environment(report),
        timings=figures.timings(report),
        options=figures.options(report),
    )


def chart_sections(run: RunFolder) -> list[ChartSection]:
    """Return the sections that have something to show."""
    found = [
        ChartSection("tradeoff", "Accuracy, size and latency", _tradeoffs(run), numbers=True),
        ChartSection("channels", "Channels", _channel_charts(run)),
        ChartSection("machine", "Latency and memory", _machine_charts(run)),
        ChartSection("answers", "Answers", _answer_charts(run), images=_images(run)),
    ]
    return [section for section in found if section.charts or section.images]


def _tradeoffs(run: RunFolder) -> list[Chart]:
    sizes = [run.limit(budget) for budget in ("file_size_mib", "flash_mib")]
    size = min((limit for limit in sizes if limit is not None), default=None)
    latency = run.limit("latency_p90_ms")
    axes = {
        "size_bytes": Axis(
            "file size", "file size, KiB", 2**-10, size_text, None if size is None else size * 2**20
        ),
        "latency": Axis("latency", "latency p90, ms for one image", 1.0, ms_text, latency),
    }
    charts = []
    for key, axis in axes.items():
        points = []
        for number, entry in enumerate(run.artifacts, 1):
            cost = p90_ms(entry) if key == "latency" else entry.get("size_bytes")
            score = score_of(entry)
            if cost and score is not None:
                kind = "baseline" if entry["stage"] == "baseline" else entry["format"]
                shipped = entry in run.shipped
                points.append(Point(number, entry["name"], kind, cost, score, shipped))
        if points:
            name = f"accuracy-{axis.name.replace(' ', '-')}"
            charts.append(draw_tradeoff(name, points, axis, run.metric, run.lowest_score))
    return charts


def _channel_charts(run: RunFolder) -> list[Chart]:
    charts = [draw_layers(run.layers)] if run.layers else []
    for agents in run.agents:
        rung, more = agents["rung"], len(run.agents) > 1
        of = f", {rung.replace('-', ' ')}" if more else ""
        charts.append(draw_certainty(agents, f"certainty-{rung}", f"The agents' certainty{of}"))
        title = f"Probability of keeping channels, by layer{of}"
        charts.append(draw_groups(agents, f"groups-{rung}", title))
    return charts


def _machine_charts(run: RunFolder) -> list[Chart]:
    charts = []
    if run.latency_ms:
        charts.append(draw_latency(run.latency_ms, run.limit("latency_p90_ms")))
    shipped = next((e for e in run.shipped if e["name"] in run.memory), None)
    if shipped is not None:
        wanted = ("baseline", shipped["format"], shipped["precision"])
        before = next(
            (
                e["name"]
                for e in run.artifacts
                if (e["stage"], e["format"], e["precision"]) == wanted and e["name"] in run.memory
            ),
            None,
        )
        old = None if before in (None, shipped["name"]) else (before, run.memory[before])
        charts.append(draw_memory(old, (shipped["name"], run.memory[shipped["name"]])))
    return charts


def _answer_charts(run: RunFolder) -> list[Chart]:
    if run.answers is None:
        return []
    found, names, charts = run.answers, _class_names(run), []
    if len(names) <= MOST_CLASSES:
        charts += [
            draw_confusion("before", "Before: the baseline", found.labels, found.before, names),
            draw_confusion("after", f"After: {run.after}", found.labels, found.after, names),
        ]
    losers = draw_losers(found, names)
    return charts if losers is None else [*charts, losers]


def _images(run: RunFolder) -> list[ChangedImage]:
    if run.changed is None or run.answers is None:
        return []
    return changed_images(run.changed, run.answers, _class_names(run))


def _class_names(run: RunFolder) -> list[str]:
    """Return a name for every class that occurs, numbers where the manifest has none."""
    assert run.answers is not None
    found = run.answers
    count = 1 + max(int(part.max(initial=0)) for part in (found.labels, found.before, found.after))
    return [*run.classes, *map(str, range(len(run.classes), count))]


def _changed_sentence(run: RunFolder) -> str:
    if run.answers is None:
        return ""
    labels, before, after = run.answers.labels, run.answers.before, run.answers.after
    lost = int(((before == labels) & (after != labels)).sum())
    won = int(((before != labels) & (after == labels)).sum())
    return (
        f"Of {len(labels)} test images {int((before != after).sum())} changed: {lost} were right "
        f"before only, {won} are right now only."
    )


def _files_note(run: RunFolder) -> str:
    places = " and the ".join(sorted({str(e["measured_on"]) for e in run.artifacts}))
    return (
        "Below each figure: how many times smaller it is than that of the baseline's float file of "
        f"the same format; below {run.metric}: the difference to the baseline. Activations are a "
        f"lower bound for one image. Measured on the {places}; latencies of different runs are not "
        "to be compared."
    )


def _decisions(report: Mapping[str, Any]) -> list[Decision]:
    found = []
    if limits := report.get("limits"):
        found.append(
            Decision("Limits of the search", [Reached.from_json(entry).line for entry in limits])
        )
    if choice := report.get("precision_choice"):
        found.append(Decision("Choice of the precision", (), _choice_table(choice)))
    if table := figures.arenas(report["artifacts"]):
        found.append(Decision("Arena in TensorFlow Lite Micro", (), table))
    for aid in FirstAid.of_report(report):
        title = f"First aid for {aid.precision} {aid.format}"
        found.append(Decision(title, aid.lines, _mixtures_table(aid)))
    if entry := report.get("quantization_training"):
        found.append(
            Decision("Training with rounding", [QuantizationFigures.from_json(entry).line])
        )
    if entry := report.get("codebook"):
        found.append(Decision("Codebook", CodebookFigures.from_json(entry).lines))
    return found


def _choice_table(choice: Sequence[Mapping[str, Any]]) -> Table:
    rows = [
        (
            f"{entry['path']}{' (ships)' if entry['shipped'] else ''}",
            percent_text(entry["validation_score"]),
            ms_text(entry["latency_p50_ms"]),
            size_text(entry["size_bytes"]),
            ", ".join(map(figures.budget_name, entry["missed"])) or NONE,
        )
        for entry in choice
    ]
    return Table(("file", "validation", "p50", "size", "misses"), rows)


def _mixtures_table(aid: FirstAid) -> Table | None:
    rows = [
        (
            ", ".join(mixture.layers) or "none",
            size_text(mixture.extra_bytes),
            percent_text(mixture.validation_score),
            "yes" if mixture.kept else "no",
        )
        for mixture in sorted(aid.mixtures, key=lambda mixture: mixture.extra_bytes)
    ]
    return Table(("layers in float", "more", "validation", "kept"), rows) if rows else None


def _devices(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "name": entry.get("device", "device"),
            "note": f"Measured at {entry.get('measured_at', 'an unknown time')}, "
            f"{figures.flat(entry.get('host'))}.",
            "verdict": entry.get("verdict", "unverified"),
            "table": figures.device_rows(entry.get("measurements", ())),
            "checks": figures.check_rows(entry.get("checks", ())),
            "warnings": entry.get("warnings", ()),
        }
        for entry in report.get("device_measurements", ())
    ]
