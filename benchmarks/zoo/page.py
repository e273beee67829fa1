"""Write the generated parts of docs/zoo.md: `python -m benchmarks.zoo.page`."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.pruning import results
from benchmarks.pruning.page.markdown import fill, number, table
from benchmarks.zoo.run import FORMATS, OURS, PEER, RESULTS

PAGE = Path(__file__).parents[2] / "docs" / "zoo.md"
MISSING = "_Not measured yet._"
EXACT = 1e-5
"""Some networks compute in float32 themselves, even on float64."""

SMALLEST_EFFECT = 1e-3
"""Masks that move the outputs less show nothing; relative to the largest output."""

PRUNABLE = 0.95
ANALYSIS_LIMIT_S, ANALYSIS_LIMIT_MIB = 3.0, 2048
MIB, KIB = 2**20, 2**10
RUNTIMES = {"onnx": "ONNX", "tflite": "TFLite"}

Row = dict[str, Any]


def main() -> None:
    """Fill the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--results", type=Path, default=RESULTS, help="file of rows")
    parser.add_argument("--out", type=Path, default=PAGE, help="page to write")
    arguments = parser.parse_args()
    rows = newest_rows(results.rows(arguments.results))
    text = fill(PAGE.read_text(encoding="utf-8"), parts(rows))
    arguments.out.write_text(text, encoding="utf-8")


def newest_rows(rows: Iterable[Row]) -> list[Row]:
    """The last row of each network and tool, in the order of the first."""
    newest: dict[tuple[str, str], Row] = {}
    for row in rows:
        newest[row["model"], row["tool"]] = row
    return list(newest.values())


def parts(rows: Sequence[Row]) -> dict[str, str]:
    """The generated parts of the page by name."""
    ours = [row for row in rows if row["tool"] == OURS]
    peers = {row["model"]: row for row in rows if row["tool"] == PEER}
    by_source = {
        source: [row for row in ours if row["source"] == source]
        for source in ("torchvision", "timm")
    }
    made = {"glance": glance(ours, peers), "failures": failures(ours)}
    for source, found in by_source.items():
        made[f"graph-{source}"] = graph_table(found)
        made[f"files-{source}"] = files_table(found)
    made["peers"] = peer_table(ours, peers)
    return {name: text or MISSING for name, text in made.items()}


def glance(ours: Sequence[Row], peers: dict[str, Row]) -> str:
    """The counts that the page opens with."""
    if not ours:
        return ""
    slimmed = [row for row in ours if "error_half" in row]
    families = conv_families(ours)
    good = [name for name, share in families.items() if share >= PRUNABLE]
    both = [row for row in ours if all(format in row for format in FORMATS)]
    counts = [
        ("Networks of torchvision, of timm", _per_source(ours)),
        ("Slim equals masked (float64)", _of(sum(map(is_exact, slimmed)), len(slimmed))),
        (
            f"Families of convolutions with {100 * PRUNABLE:.0f} % of the channels prunable",
            _of(len(good), len(families)),
        ),
        ("Both INT8 files made and run", _of(len(both), len(ours))),
        (
            f"Analysis within {ANALYSIS_LIMIT_S:.0f} processor seconds, {ANALYSIS_LIMIT_MIB} MiB",
            _of(sum(map(_quick_analysis, ours)), len(ours)),
        ),
    ]
    shared = [row for row in ours if row["model"] in peers]
    if shared:
        ran = [peers[row["model"]] for row in shared if "error" in peers[row["model"]]]
        exact = sum(row["error"] <= EXACT for row in ran)
        counts += [
            ("Torch-Pruning 1.6.1: ran", _of(len(ran), len(shared))),
            ("Torch-Pruning 1.6.1: its pruned network is the masked one", _of(exact, len(shared))),
        ]
    return table(["", "Count"], counts)


def conv_families(rows: Iterable[Row]) -> dict[str, float]:
    """The lowest prunable share of convolutions in each convolutional family."""
    lowest: dict[str, float] = {}
    for row in rows:
        if row["convolutional"]:
            share = row.get("prunable_conv", 0.0)
            name = f"{row['source']} {row['family']}"
            lowest[name] = min(share, lowest.get(name, share))
    return lowest


def is_exact(row: Row) -> bool:
    """Whether both keep sets gave the masked network, and masks that do something at all."""
    errors = max(row["error_half"], row["error_emptied"])
    return bool(errors <= EXACT and row["effect"] >= SMALLEST_EFFECT)


def graph_table(rows: Sequence[Row]) -> str:
    """What the analysis found."""
    header = ["Network", "Stays fixed", "px", "Parameters, M", "Analysis, s", "Memory, MiB"]
    header += ["Masks' effect", "Largest error"]
    header += ["Prunable conv, %", "Removed conv, %", "Removed all, %"]
    return _rows(
        header,
        (
            [
                row["model"],
                fixed_text(row.get("fixed", {})),
                str(row["size"]),
                number(row.get("parameters"), 1, scale=1e-6),
                number(row.get("analysis_cpu_s"), 2),
                number(row.get("analysis_peak_bytes"), 0, scale=1 / MIB),
                number(row.get("effect"), 2),
                _error(row),
                number(row.get("prunable_conv"), 1, scale=100),
                number(row.get("removed_conv"), 1, scale=100),
                number(row.get("removed_all"), 1, scale=100),
            ]
            for row in rows
        ),
        text_columns=2,
    )


def files_table(rows: Sequence[Row]) -> str:
    """What became of the slim network's files."""
    header = ["Network"]
    for name in RUNTIMES.values():
        header += [f"{name}, s", "KiB", "Agreement, %", "Correlation", "In float"]
    return _rows(
        header,
        (
            [row["model"], *(cell for format in FORMATS for cell in _file_cells(row.get(format)))]
            for row in rows
        ),
    )


def failures(rows: Sequence[Row]) -> str:
    """One line for each stage that a network didn't get through."""
    if rows and not any(row["errors"] for row in rows):
        return "Nothing."
    return _rows(
        ["Network", "Stage", "Reason"],
        (
            [row["model"], stage, _cell(message)]
            for row in rows
            for stage, message in row["errors"].items()
        ),
        text_columns=3,
    )


def peer_table(ours: Sequence[Row], peers: dict[str, Row]) -> str:
    """Torch-Pruning beside our analysis."""
    header = ["Network", "Torch-Pruning", "Its error", "Its analysis, s", "Its pruning, s"]
    header += ["Its memory, MiB", "Ours: analysis, s", "Ours: error", "Removed conv, %: its, ours"]
    lines = []
    for row in ours:
        peer = peers.get(row["model"])
        if peer is None:
            continue
        gone = [number(one.get("removed_conv"), 1, scale=100) for one in (peer, row)]
        lines.append(
            [
                row["model"],
                peer_verdict(peer),
                f"{peer['error']:.0e}" if "error" in peer else "",
                number(peer.get("analysis_cpu_s"), 2),
                number(peer.get("prune_cpu_s"), 2),
                number(peer.get("analysis_peak_bytes"), 0, scale=1 / MIB),
                number(row.get("analysis_cpu_s"), 2),
                _error(row),
                ", ".join(part or "-" for part in gone),
            ]
        )
    return _rows(header, lines, text_columns=2)


def peer_verdict(peer: Row) -> str:
    """Exact, not exact, or why it did not run."""
    if peer["errors"]:
        return f"fails: {_cell(' '.join(peer['errors'].values()))}"
    return "exact" if peer["error"] <= EXACT else "runs, not exact"


def fixed_text(fixed: dict[str, dict[str, Any]]) -> str:
    """Reasons with the first place of each; the network's outputs go without saying."""
    said = []
    for reason, entry in fixed.items():
        if entry["first"] == "output":
            continue
        more = f" and {entry['places'] - 1} more" if entry["places"] > 1 else ""
        said.append(_cell(f"`{entry['first']}`{more}: {reason}"))
    return "<br>".join(said)


def _file_cells(file: Row | None) -> list[str]:
    if file is None:
        return [""] * 5
    left = ", ".join(f"{count} {name}" for name, count in file["float_operators"].items())
    return [
        number(file["conversion_cpu_s"], 0),
        number(file["int8_bytes"], 0, scale=1 / KIB),
        number(file["agreement"], 1, scale=100),
        number(file["correlation"], 3),
        left,
    ]


def _error(row: Row) -> str:
    if "error_half" not in row:
        return ""
    return f"{max(row['error_half'], row['error_emptied']):.0e}"


def _quick_analysis(row: Row) -> bool:
    seconds, peak_bytes = row.get("analysis_cpu_s"), row.get("analysis_peak_bytes")
    if seconds is None or seconds > ANALYSIS_LIMIT_S:
        return False
    return peak_bytes is None or bool(peak_bytes <= ANALYSIS_LIMIT_MIB * MIB)


def _per_source(rows: Sequence[Row]) -> str:
    counts = [sum(row["source"] == source for row in rows) for source in ("torchvision", "timm")]
    return ", ".join(map(str, counts))


def _of(count: int, total: int) -> str:
    return f"{count} of {total}"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _rows(header: Sequence[str], rows: Iterable[Sequence[str]], *, text_columns: int = 1) -> str:
    lines = list(rows)
    return table(header, lines, text_columns=text_columns) if lines else ""


if __name__ == "__main__":
    main()
