"""Boards and their files down, budgets across: on the terminal and as fleet.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from compress_export.entries import STATUS_STYLES

if TYPE_CHECKING:
    from rich.console import Console

Report = Mapping[str, Any]
_SIGNS = {"pass": "", "fail": "✗ ", "unverified": "? "}
_SHORT = {
    "file_size_mib": "size MiB",
    "weights_mib": "weights MiB",
    "activation_memory_mib": "activations MiB",
    "ram_mib": "RAM MiB",
    "flash_mib": "flash MiB",
    "peak_rss_mib": "RSS MiB",
    "latency_p90_ms": "p90 ms",
    "accuracy_drop_points": "drop points",
}
LEGEND = "value / limit; ✗ missed, ? not decided, - no such budget"


def budgets_of(report: Report) -> list[str]:
    """Budgets that any board has, in a fixed order; targets of the search at the end."""
    there = {check["budget"] for check in report["checks"]}
    known = [name for name in _SHORT if name in there]
    return [*known, *sorted(there - set(known))]


def matrix_rows(report: Report) -> list[tuple[str, str, list[Mapping[str, Any] | None]]]:
    """Return (board, file, one check or None for each budget); a job's own checks have no file."""
    budgets = budgets_of(report)
    cells = {(c["board"], c["file"], c["budget"]): c for c in report["checks"]}
    rows = dict.fromkeys((c["board"], c["file"]) for c in report["checks"])
    return [
        (board, file, [cells.get((board, file, budget)) for budget in budgets])
        for board, file in rows
    ]


def cell_text(check: Mapping[str, Any] | None) -> str:
    """ "0.052 / 64", with a sign where it did not pass."""
    if check is None:
        return "-"
    value = "-" if check["value"] is None else f"{check['value']:.3g}"
    return f"{_SIGNS[check['status']]}{value} / {check['limit']:.4g}"


def print_matrix(report: Report, console: Console) -> None:
    """The matrix, a line for each board, and the verdict."""
    from rich.box import SIMPLE_HEAD
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for heading in ("board", "file"):
        table.add_column(heading, overflow="fold")
    for budget in budgets_of(report):
        table.add_column(_SHORT.get(budget, budget), justify="right", overflow="fold")
    for board, file, checks in matrix_rows(report):
        cells = [
            f"[{STATUS_STYLES[check['status']]}]{cell_text(check)}[/]" if check else "-"
            for check in checks
        ]
        table.add_row(escape(board), escape(file), *cells)
    console.print(table)
    console.print(f"[dim]{LEGEND}[/]", highlight=False)
    for line, verdict in _board_lines(report):
        console.print(f"[{STATUS_STYLES[verdict]}]{verdict:<10}[/] {escape(line)}", highlight=False)
    verdict = report["verdict"]
    console.print(f"verdict: [{STATUS_STYLES[verdict]}]{verdict}[/]")


def _board_lines(report: Report) -> list[tuple[str, str]]:
    return [
        (
            f"{entry['board']}"
            + ("" if entry["need"] == entry["board"] else f", with the files of {entry['need']}"),
            entry["verdict"],
        )
        for entry in report["fleet"]
    ]


def matrix_markdown(report: Report) -> str:
    """fleet.md."""
    headings = ["board", "file", *(_SHORT.get(name, name) for name in budgets_of(report))]
    lines = [f"# {len(report['fleet'])} boards: {report['verdict']}", ""]
    lines += ["| " + " | ".join(headings) + " |", "|---|---" + "|---:" * (len(headings) - 2) + "|"]
    for board, file, checks in matrix_rows(report):
        lines.append("| " + " | ".join((board, file, *map(cell_text, checks))) + " |")
    lines += ["", LEGEND + ".", ""]
    lines += [f"- {verdict}: {line}" for line, verdict in _board_lines(report)]
    return "\n".join([*lines, ""])
