"""`gate --why`: the layers of each shipped file, on the terminal and in Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from compress_export.gate.hosted_ci import cell
from compress_export.gate.layers import FileLayers, heaviest

if TYPE_CHECKING:
    from rich.console import Console

SHOWN = 12
HEADINGS = ("layer", "operator", "KiB", "%", "MACs", "%", "ms", "%")


@dataclass(frozen=True)
class _Whole:
    """What shares are of."""

    size_bytes: float
    macs: float
    time_ms: float


def why_rows(file: FileLayers, *, by_time: bool) -> list[tuple[str, ...]]:
    """The heaviest layers, the others together, and what belongs to no layer."""
    layers = heaviest(file.layers, by_time=by_time and file.time_ms is not None)
    all_macs = float(sum(layer.macs or 0 for layer in layers))
    whole = _Whole(file.size_bytes, all_macs, file.time_ms or 0.0)
    rows = [
        _row(layer.name, layer.operator, layer.size_bytes, layer.macs, layer.time_ms, whole)
        for layer in layers[:SHOWN]
    ]
    if rest := layers[SHOWN:]:
        macs = sum(layer.macs or 0 for layer in rest)
        times = [layer.time_ms for layer in rest if layer.time_ms is not None]
        sizes = sum(layer.size_bytes for layer in rest)
        time_ms = sum(times) if times else None
        rows.append(_row(f"{len(rest)} smaller layers", "", sizes, macs, time_ms, whole))
    size_bytes = file.size_bytes - sum(layer.size_bytes for layer in layers)
    left_ms = None
    if file.time_ms is not None:
        left_ms = file.time_ms - sum(layer.time_ms or 0.0 for layer in layers)
    rows.append(_row("everything else", "", size_bytes, None, left_ms, whole))
    return rows


def _row(
    name: str,
    operator: str,
    size_bytes: int,
    macs: int | None,
    time_ms: float | None,
    whole: _Whole,
) -> tuple[str, ...]:
    return (
        name,
        operator,
        f"{size_bytes / 1024:.2f}",
        _share(size_bytes, whole.size_bytes),
        "-" if macs is None else f"{macs:,}",
        _share(macs, whole.macs),
        "-" if time_ms is None else f"{time_ms:.4f}",
        _share(time_ms, whole.time_ms),
    )


def _share(value: float | None, whole: float) -> str:
    return "-" if value is None or not whole else f"{100 * value / whole:.1f}"


def print_why(file: FileLayers, console: Console, *, by_time: bool) -> None:
    """A table of one file."""
    from rich.box import SIMPLE_HEAD
    from rich.markup import escape
    from rich.table import Table

    table = Table(
        title=escape(f"{file.file} by layer; time {file.time_note}"),
        title_justify="left",
        box=SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
    )
    for index, heading in enumerate(HEADINGS):
        table.add_column(heading, justify="right" if index > 1 else "left", overflow="fold")
    for row in why_rows(file, by_time=by_time):
        table.add_row(*map(escape, row))
    console.print(table)


def why_markdown(files: Sequence[FileLayers], *, by_time: bool) -> str:
    """The same, folded away, for a step summary."""
    lines = []
    for file in files:
        lines += [f"<details><summary>{cell(file.file)} by layer</summary>", ""]
        lines += ["| " + " | ".join(HEADINGS) + " |", "|---|---" + "|---:" * 6 + "|"]
        rows = why_rows(file, by_time=by_time)
        lines += ["| " + " | ".join(map(cell, row)) + " |" for row in rows]
        lines += ["", f"Time {file.time_note}.", "", "</details>", ""]
    return "\n".join(lines)
