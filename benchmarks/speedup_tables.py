"""The speed-up of pruned networks beside the ideal, and its tables; measured by bench_speedup."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from runtime_bench import Burst

WHOLE = "unpruned"

WANTED = {
    ("onnx", "float32"): {2: 0.9, 4: 0.8},
    ("tflite", "float32"): {2: 0.9, 4: 0.8},
    ("onnx", "int8"): {2: 0.8, 4: 0.6},
    ("tflite", "int8"): {2: 0.9, 4: 0.75},
}
"""(format, precision) -> MACs factor -> least fraction of the ideal speed-up."""


@dataclass(frozen=True)
class Row:
    """One file.

    Attributes:
        macs_factor: MACs of the unpruned network over this one's.
        latency_p50_ms, latency_p90_ms: of one image, in the median round.
        speedup: over the unpruned file of the same format and precision, in the median round.
        speedup_quartiles: of all rounds.
        fraction: of the ideal, which is the MACs factor.
        wanted: least fraction; None where nothing was said of such a factor.
    """

    network: str
    macs_factor: float
    format: str
    precision: str
    size_bytes: int
    latency_p50_ms: float
    latency_p90_ms: float
    speedup: float
    speedup_quartiles: tuple[float, float]
    fraction: float
    wanted: float | None


def speedups(reference: Sequence[Burst], own: Sequence[Burst]) -> tuple[float, float, float]:
    """Return the quartiles of the rounds' speed-ups; what slows a round slows both files."""
    ratios = [a.median_ms / b.median_ms for a, b in zip(reference, own, strict=True)]
    low, middle, high = np.percentile(ratios, [25, 50, 75]).tolist()
    return low, middle, high


def wanted(file_format: str, precision: str, macs_factor: float) -> float | None:
    """Return the least fraction of the ideal for a factor within 10 % of one with a goal."""
    for factor, fraction in WANTED[file_format, precision].items():
        if abs(macs_factor / factor - 1) <= 0.1:
            return fraction
    return None


def markdown(content: dict[str, Any]) -> str:
    """Return the tables for the documents."""
    facts = content["facts"]
    lines = [
        f"# Realized speed-up of {facts['network']}",
        "",
        f"`{facts['command']}`; {facts['machine']}, {facts['threads']} thread, "
        f"{' and '.join(facts['runtimes'])}, load average {facts['load_average']}, "
        f"{facts['date']}.",
        "",
        "One image; p50 and p90 of the median round. The speed-up is over the unpruned file of the "
        "same format and precision, round by round, with its quartiles; its fraction of the MACs "
        "factor is the last but one column.",
        "",
        "| network | format | precision | MiB | p50 ms | p90 ms | speed-up | quartiles | MACs "
        "| fraction | wanted |",
        "|---|---|---|---:|---:|---:|---:|---|---:|---:|---:|",
    ]
    for row in content["rows"]:
        low, high = row["speedup_quartiles"]
        goal = "" if row["wanted"] is None else f"{row['wanted']:g}"
        lines.append(
            f"| {row['network']} | {row['format']} | {row['precision']} "
            f"| {row['size_bytes'] / 2**20:.2f} | {row['latency_p50_ms']:.3f} "
            f"| {row['latency_p90_ms']:.3f} | {row['speedup']:.2f} | {low:.2f} - {high:.2f} "
            f"| 1/{row['macs_factor']:.2f} | {row['fraction']:.2f} | {goal} |"
        )
    lines += [
        "",
        "## Where the time is",
        "",
        "Milliseconds of each part's layers, timed alone; in brackets how many times faster than "
        "unpruned, of how many times fewer MACs. `rest` is the whole file less all parts: what a "
        "run costs beside its layers, and fetching weights that fit the caches alone but not "
        "together.",
        "",
    ]
    for name, milliseconds in content["part_milliseconds"].items():
        lines += _part_table(name, milliseconds, content)
    return "\n".join(lines)


def _part_table(
    name: str, milliseconds: dict[str, dict[str, float]], content: dict[str, Any]
) -> Iterator[str]:
    macs, parts = content["part_macs"], list(milliseconds[WHOLE])
    whole_ms = {
        row["network"]: row["latency_p50_ms"]
        for row in content["rows"]
        if f"{row['format']} {row['precision']}" == name
    }
    yield f"| {name} | {' | '.join(parts)} | rest |"
    yield f"|---|{'---:|' * (len(parts) + 1)}"
    for network, found in milliseconds.items():
        cells = []
        for part in parts:
            if network == WHOLE or part not in found:
                cells.append(f"{found[part]:.4f}" if part in found else "gone")
                continue
            times = f"{milliseconds[WHOLE][part] / max(found[part], 1e-9):.2f}"
            if part in macs[WHOLE]:
                times += f" of {macs[WHOLE][part] / macs[network][part]:.2f}"
            cells.append(f"{found[part]:.4f} ({times})")
        cells.append(f"{whole_ms[network] - sum(found.values()):.4f}")
        yield f"| {network} | {' | '.join(cells)} |"
    yield ""
