"""The result as a table: on the terminal, and as report.md from the same rows.

Both read the report (report.json, docs/report.md) as a plain dict, so that a table can be made
again from a file of any earlier run.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from compress_export.codebook import CodebookFigures
from compress_export.entries import STATUS_STYLES, goes_to_the_board, p90_ms, score_of
from compress_export.first_aid_figures import FirstAid
from compress_export.first_aid_plot import FIRST_AID_PICTURE
from compress_export.precision_choice import Candidate
from compress_export.precision_plot import PICTURE
from compress_export.quantization_training import QuantizationFigures
from compress_export.reached import Reached
from compress_export.sizes import mib

if TYPE_CHECKING:
    from rich.console import Console

Report = Mapping[str, Any]
_FORMAT_NAMES = {"onnx": "ONNX", "tflite": "TFLite"}
_PRECISION_NAMES = {
    "int8": "INT8",
    "float16": "FP16",
    "float32": "float",
    "int8-dynamic": "INT8 dynamic",
    "int8-weights": "INT8 weights",
    "int4-weights": "INT4 weights",
    "int2-weights": "INT2 weights",
    "int8-int16": "INT8/16",
}


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        size_bytes: of the file; for the two networks of the float ONNX file.
        score, precision_macro, recall_macro: fractions of 1; the score is the mean of the metric.
        latency_p90_ms: of one image.
        Any of them None where it was not measured.
    """

    name: str
    size_bytes: int | None
    params: int | None
    macs: int | None
    score: float | None
    precision_macro: float | None
    recall_macro: float | None
    latency_p90_ms: float | None


def rows(report: Report) -> tuple[Row, ...]:
    """Baseline, slim, then the slim network's files for the board, ONNX before TFLite, and others.

    The two networks take precision, recall
    and latency from their float ONNX file, or the TFLite one where a board has no ONNX.
    """
    stages: Mapping[str, Any] = report.get("stages", {})
    networks = [
        _network_row(stage, stages[stage], report)
        for stage in ("baseline", "slim")
        if stage in stages
    ]
    deployed = stages.get("slim") or stages.get("baseline") or {}
    return (*networks, *(_file_row(entry, deployed) for entry in _deployed(report)))


def _network_row(stage: str, figures: Mapping[str, Any], report: Report) -> Row:
    measured = _artifact(report, stage, "float32", "onnx") or _artifact(
        report, stage, "float32", "tflite"
    )
    return Row(
        name=stage,
        size_bytes=figures.get("size_bytes"),
        params=figures.get("params"),
        macs=figures.get("macs"),
        score=score_of(figures),
        precision_macro=figures.get("precision_macro", measured.get("precision_macro")),
        recall_macro=figures.get("recall_macro", measured.get("recall_macro")),
        latency_p90_ms=p90_ms(measured),
    )


def _file_row(entry: Mapping[str, Any], network: Mapping[str, Any]) -> Row:
    file_format = _FORMAT_NAMES.get(entry["format"], entry["format"])
    precision = _PRECISION_NAMES.get(entry["precision"], entry["precision"])
    return Row(
        name=f"{file_format} {precision}",
        size_bytes=entry.get("size_bytes"),
        params=network.get("params"),
        macs=network.get("macs"),
        score=score_of(entry),
        precision_macro=entry.get("precision_macro"),
        recall_macro=entry.get("recall_macro"),
        latency_p90_ms=p90_ms(entry),
    )


def _deployed(report: Report) -> list[Mapping[str, Any]]:
    """The files that a board gets, then those of the same network to compare them with."""
    entries: Sequence[Mapping[str, Any]] = report.get("artifacts", ())
    shipped = [entry for entry in entries if goes_to_the_board(entry)]
    stages = {entry["stage"] for entry in shipped}
    compared = [
        entry
        for entry in entries
        if entry not in shipped and entry["stage"] in stages and entry["precision"] != "float32"
    ]
    return [
        *sorted(shipped, key=lambda entry: str(entry["format"])),
        *sorted(compared, key=lambda entry: str(entry["format"])),
    ]


def _artifact(report: Report, stage: str, precision: str, file_format: str) -> Mapping[str, Any]:
    wanted = (stage, precision, file_format)
    for entry in report.get("artifacts", ()):
        if (entry["stage"], entry["precision"], entry["format"]) == wanted:
            return dict(entry)
    return {}


@dataclass(frozen=True)
class Cell:
    """A figure and how many times smaller it is than the baseline's; "" where that is unknown."""

    text: str
    ratio: str = ""


def cells(row: Row, baseline: Row | None) -> tuple[Cell, ...]:
    """The row's figures in the order of the headings, without the name."""

    def count(value: float | None, text: str | None, base: float | None) -> Cell:
        if value is None or text is None:
            return Cell("-")
        compared = baseline is not None and baseline is not row and base and value
        return Cell(text, f"{base / value:.1f}x" if compared and base else "")

    base = baseline or row
    return (
        count(row.size_bytes, _text(row.size_bytes, mib), base.size_bytes),
        count(row.params, _text(row.params, _short), base.params),
        count(row.macs, _text(row.macs, _short), base.macs),
        Cell(_text(row.score, _percent) or "-"),
        Cell(_text(row.precision_macro, _percent) or "-"),
        Cell(_text(row.recall_macro, _percent) or "-"),
        count(row.latency_p90_ms, _text(row.latency_p90_ms, _short_ms), base.latency_p90_ms),
    )


def _text(value: Any, show: Any) -> str | None:
    return None if value is None else str(show(value))


def _percent(share: float) -> str:
    return f"{share * 100:.2f}"


def _short_ms(milliseconds: float) -> str:
    return f"{milliseconds:#.3g}".rstrip(".")


def _short(count: float) -> str:
    """A count with three digits and its unit: 269722 -> "270k", 40551808 -> "40.6M"."""
    for factor, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= factor * 0.9995:  # what rounds to 1000 of a unit is 1 of the next
            return f"{count / factor:#.3g}".rstrip(".") + unit
    return f"{count:g}"


def headings(report: Report) -> tuple[str, ...]:
    """Those of the columns; a user's metric is named without its module."""
    metric = str(report.get("metric", "top-1")).rpartition(":")[2]
    return ("", "size MiB", "params", "MACs", f"{metric} %", "precision %", "recall %", "p90 ms")


def print_report(report: Report, console: "Console") -> None:
    """The table, the budgets, the limits of the search, the warnings and the verdict."""
    from rich.box import SIMPLE_HEAD
    from rich.markup import escape
    from rich.table import Table

    # a light frame and no wrapping: eight columns have to fit into 80 characters
    table = Table(
        title=escape(_subject(report)),
        title_justify="left",
        box=SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    for index, heading in enumerate(headings(report)):
        table.add_column(heading, justify="right" if index else "left", no_wrap=True)
    found = rows(report)
    for row in found:
        figures = [
            f"{c.text}\n[dim]{c.ratio}[/dim]" if c.ratio else c.text for c in _cells(row, found)
        ]
        table.add_row(escape(row.name), *figures)
    console.print(table)
    console.print(f"[dim]{measured_note(report)}[/dim]")
    # soft wrap: one line per budget, for people and for grep
    for check in report.get("checks", ()):
        status = check["status"]
        line = f"[{STATUS_STYLES.get(status, '')}]{status:<10}[/] {escape(check_line(check))}"
        console.print(line, highlight=False, soft_wrap=True)
    for entry in report.get("limits", ()):
        line = f"[dim]limit     [/] {escape(Reached.from_json(entry).line)}"
        console.print(line, highlight=False, soft_wrap=True)
    if trained := _quantization_line(report):
        console.print(f"[dim]quantized [/] {escape(trained)}", highlight=False, soft_wrap=True)
    for text in _first_aid_lines(report):
        console.print(f"[dim]first aid [/] {escape(text)}", highlight=False, soft_wrap=True)
    for text in _choice_lines(report):
        console.print(f"[dim]precision [/] {escape(text)}", highlight=False, soft_wrap=True)
    for text in _codebook_lines(report):
        console.print(f"[dim]codebook  [/] {escape(text)}", highlight=False, soft_wrap=True)
    for text in _profile_lines(report):
        console.print(f"[dim]profile   [/] {escape(text)}", highlight=False, soft_wrap=True)
    for text in _arena_lines(report):
        console.print(f"[dim]arena     [/] {escape(text)}", highlight=False, soft_wrap=True)
    for warning in report.get("warnings", ()):
        line = f"[yellow]warning[/]    {escape(warning)}"
        console.print(line, highlight=False, soft_wrap=True)
    verdict = report["verdict"]
    console.print(f"verdict: [{STATUS_STYLES.get(verdict, '')}]{verdict}[/]")


def _subject(report: Report) -> str:
    return f"{report['model']} for {report['board']}"


def _cells(row: Row, found: Sequence[Row]) -> tuple[Cell, ...]:
    return cells(row, found[0] if found[0].name == "baseline" else None)


def measured_note(report: Report) -> str:
    """Where the figures come from; a latency from the host says nothing about the board."""
    places = sorted({str(entry.get("measured_on")) for entry in report.get("artifacts", ())})
    text = "1.0x is the baseline; latency of one image"
    return f"{text}, measured on the {' and the '.join(places)}" if places else text


def check_line(check: Mapping[str, Any]) -> str:
    """One budget of one file: "slim.int8.onnx file_size 2 MiB, limit 8 MiB, headroom 6 MiB".

    A value beyond its limit says by how much, also where it decides nothing.
    """
    value, limit, unit = check["value"], check["limit"], check["unit"]
    parts = [f"{check['file']} {check['budget']}".strip()]
    if value is None:
        parts[0] += " cannot be met" if check["status"] == "fail" else " not measured"
    else:
        parts[0] += f" {value:.4g} {unit}"
    parts.append(f"limit {limit:.4g} {unit}")
    if value is not None:
        # "not <=" rather than ">": no headroom beside a NaN
        kind = "headroom" if value <= limit else "over by"
        parts.append(f"{kind} {abs(limit - value):.4g} {unit}")
    text = ", ".join(parts)
    return f"{text} ({check['note']})" if check.get("note") else text


def report_markdown(report: Report) -> str:
    """report.md: the same rows and checks as the terminal shows."""
    found = rows(report)
    lines = [f"# {_subject(report)}: {report['verdict']}", ""]
    names = headings(report)
    lines += ["| " + " | ".join(names) + " |", "|---" + "|---:" * (len(names) - 1) + "|"]
    for row in found:
        figures = [f"{c.text} ({c.ratio})" if c.ratio else c.text for c in _cells(row, found)]
        lines.append(f"| {row.name} | " + " | ".join(figures) + " |")
    lines += ["", measured_note(report) + ".", ""]
    if checks := report.get("checks"):
        lines += ["## Budgets", "", "| status | budget |", "|---|---|"]
        lines += [f"| {check['status']} | {_md(check_line(check))} |" for check in checks]
        lines.append("")
    if limits := report.get("limits"):
        lines += ["## Limits of the search", ""]
        lines += [*(f"- {Reached.from_json(entry).line}" for entry in limits), ""]
    if trained := _quantization_line(report):
        lines += ["## Quantization-aware training", "", f"- {trained}", ""]
    lines += _first_aid_section(report)
    if choice := _choice_lines(report):
        lines += ["## Precision", "", *(f"- {line}" for line in choice), ""]
        lines += [f"![accuracy, latency and size of all candidates]({PICTURE})", ""]
    if codebook := _codebook_lines(report):
        lines += ["## Codebook", "", *(f"- {line}" for line in codebook), ""]
    if profiles := _profile_lines(report):
        lines += ["## Profiles", "", *(f"- {line}" for line in profiles), ""]
    if arenas := _arena_lines(report):
        lines += ["## Arena", "", *(f"- {line}" for line in arenas), ""]
    if warnings := report.get("warnings"):
        lines += ["## Warnings", "", *(f"- {warning}" for warning in warnings), ""]
    if timings := report.get("timings_seconds"):
        lines += ["## Time", "", "| stage | seconds |", "|---|---:|"]
        lines += [f"| {stage} | {seconds:.1f} |" for stage, seconds in timings.items()]
        lines.append("")
    return "\n".join(lines)


def _profile_lines(report: Report) -> list[str]:
    """The targets that the bundle's files are made for, and what stands behind that."""
    return [
        f"{entry['name']} for {entry['profile']}: {entry['profile_status']}"
        for entry in report.get("artifacts", ())
        if entry.get("profile") and goes_to_the_board(entry)
    ]


def _arena_lines(report: Report) -> list[str]:
    """What the bundle's file takes of a microcontroller's RAM, in bytes."""
    found = ((entry, entry.get("arena")) for entry in report.get("artifacts", ()))
    return [
        f"{entry['name']}: smallest {arena['smallest_bytes']}, after a run {arena['total_bytes']} "
        f"(head {arena['head_bytes']}, tail {arena['tail_bytes']}) bytes in {arena['runtime']}; "
        f"operators {', '.join(arena['operators'])}"
        for entry, arena in found
        if arena and goes_to_the_board(entry)
    ]


def _quantization_line(report: Report) -> str:
    entry = report.get("quantization_training")
    return QuantizationFigures.from_json(entry).line if entry else ""


def _first_aid_lines(report: Report) -> list[str]:
    return [line for figures in FirstAid.of_report(report) for line in figures.lines]


def _first_aid_section(report: Report) -> list[str]:
    """What was tried; the sets of layers left in float as tables and a picture."""
    lines = []
    found = FirstAid.of_report(report)
    for figures in found:
        lines += [*(f"- {line}" for line in figures.lines), ""]
        if not figures.mixtures:
            continue
        lines += ["| layers in float | more bytes | validation | |", "|---|---:|---:|---|"]
        for mixture in sorted(figures.mixtures, key=lambda mixture: mixture.extra_bytes):
            names = _md(", ".join(mixture.layers)) or "none"
            score, kept = f"{100 * mixture.validation_score:.2f} %", "kept" if mixture.kept else ""
            lines.append(f"| {names} | {mixture.extra_bytes} | {score} | {kept} |")
        lines.append("")
    if any(figures.layers for figures in found):
        lines += [f"![layers in float, accuracy and bytes]({FIRST_AID_PICTURE})", ""]
    return ["## First aid", "", *lines] if lines else []


def _choice_lines(report: Report) -> list[str]:
    return [Candidate.from_json(entry).line for entry in report.get("precision_choice", ())]


def _codebook_lines(report: Report) -> list[str]:
    entry = report.get("codebook")
    return CodebookFigures.from_json(entry).lines if entry else []


def _md(text: str) -> str:
    return text.replace("|", "\\|")
