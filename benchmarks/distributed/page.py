"""Make the tables of docs/distributed.md from results/distributed.jsonl.

python -m benchmarks.distributed.page
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.pruning.page.markdown import fill, table
from benchmarks.pruning.results import rows
from compress_export.html_report.tradeoff import Point, pareto

ROOT = Path(__file__).parents[2]
RESULT = ROOT / "benchmarks" / "results" / "distributed.jsonl"
PAGE = ROOT / "docs" / "distributed.md"
PROCESSES = (1, 2, 4, 8, 16, 32)
NETWORKS = (("1 Gbit/s, 100 us", 125e6, 100e-6), ("10 Gbit/s, 30 us", 1.25e9, 30e-6))
"""Name, bytes a second, seconds that a message takes beside its bytes."""

_NONE = "Not measured yet."

Rows = Sequence[dict[str, Any]]


def parts(found: Rows) -> dict[str, str]:
    """Return the generated parts of the page."""
    kinds = ("equality", "kill", "throughput", "sweep", "trial")
    by_kind = {kind: [row for row in found if row["kind"] == kind] for kind in kinds}
    return {
        "equality": _equality(by_kind["equality"]),
        "kills": _kills(by_kind["kill"]),
        "throughput": _throughput(by_kind["throughput"]),
        "scaling": _scaling(by_kind["throughput"]),
        "sweep": _sweep(by_kind["sweep"], by_kind["trial"]),
    }


def step_seconds(
    alone: dict[str, Any], sent: dict[str, Any], count: int, rate: float, hop: float
) -> float:
    """Return what a step takes on paper, with a ring: 2 (n - 1) hops, 2 (n - 1) / n of the bytes.

    Args:
        alone: the step of one process, whose time is divided by the number of processes.
        sent: the step of several, for its bytes and calls.
        count: processes, n.
        rate: bytes a second.
        hop: seconds that a message takes beside its bytes.
    """
    computing = float(alone["fastest_ms"]) / 1e3 / count
    hops = 2 * (count - 1)
    return computing + hops * (sent["calls"] * hop + sent["sent_bytes"] / count / rate)


def _equality(found: Rows) -> str:
    body = [
        (row["network"], str(row["processes"]), "yes" if row["same_widths"] else "no",
         "other channels" if row["weights"] is None else f"{row['weights']:.1e}",
         f"{row['probabilities']:.1e}",
         " and ".join(f"{100 * score:.2f}" for score in row["validation_top1"]))
        for row in found
    ]  # fmt: skip
    header = ("Batch norm", "Processes", "Same widths", "Weights differ by", "Probabilities by",
              "Validation top-1 %, and of one")  # fmt: skip
    return table(header, body) if body else _NONE


def _kills(found: Rows) -> str:
    body = [
        (str(row["rank"]), str(row["epochs_again"]), f"{row['seconds_to_end']:.0f}",
         "yes" if row["weights"] == row["probabilities"] == 0 else "no")
        for row in found
    ]  # fmt: skip
    header = ("Killed process", "Finished epochs done again", "Seconds to the end", "Identical")
    return table(header, body) if body else _NONE


def _throughput(found: Rows) -> str:
    body = [
        (row["what"], str(row["processes"]), f"{row['median_ms']:.0f}", f"{row['fastest_ms']:.0f}",
         f"{1e3 * row['images'] / row['fastest_ms']:.0f}", f"{row['cpu_ms']:.0f}",
         f"{row['sent_bytes'] / 2**20:.2f}", f"{row['calls']:.0f}", f"{row['load_average']:.1f}")
        for row in found
    ]  # fmt: skip
    header = ("Step", "Processes", "Median ms", "Fastest ms", "Images/s, fastest",
              "Own CPU ms", "Sent MiB", "Calls", "Load average")  # fmt: skip
    return table(header, body) if body else _NONE


def _scaling(found: Rows) -> str:
    body = []
    for what in ("training", "search"):
        mine = {row["processes"]: row for row in found if row["what"] == what}
        if not {1, 2} <= mine.keys():
            return _NONE
        for name, rate, hop in NETWORKS:
            seconds = [step_seconds(mine[1], mine[2], n, rate, hop) for n in PROCESSES]
            body.append((what, name, *(f"{seconds[0] / s:.1f}" for s in seconds)))
    header = ("Step", "Network", *map(str, PROCESSES))
    return table(header, body, text_columns=2)


def _sweep(sweeps: Rows, trials: Rows) -> str:
    if not sweeps:
        return _NONE
    last = sweeps[-1]
    latest = {row["name"]: row for row in trials}
    points = [
        Point(number, name, "onnx", row["size_bytes"], row["top1"], shipped=True)
        for number, (name, row) in enumerate(latest.items())
    ]
    front = {point.name for point in pareto(points)}
    body = [
        (name, row["verdict"], f"{row['size_bytes'] / 2**10:.1f}", f"{100 * row['top1']:.2f}",
         f"{100 * (row['baseline_top1'] - row['top1']):.2f}",
         "front" if name in front else "")
        for name, row in latest.items()
    ]  # fmt: skip
    header = ("Trial", "Verdict", "INT8 ONNX KiB", "top-1 %", "Lost, points", "Size and accuracy")
    return (
        f"{last['trials']} trials in {last['seconds']} s, exit code {last['code']}; the worker of "
        f"`{last['killed']}` was killed, and the trial {last['killed_resumed']}.\n\n"
        f"{table(header, body, text_columns=2)}"
    )


def main() -> None:
    """Write the page."""
    found = parts(list(rows(RESULT)))
    PAGE.write_text(fill(PAGE.read_text(encoding="utf-8"), found), encoding="utf-8")


if __name__ == "__main__":
    main()
