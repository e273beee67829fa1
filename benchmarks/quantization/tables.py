"""The tables of docs/quantization-benchmarks.md, made from rows of finished runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from benchmarks.pruning.page.markdown import table, with_range
from benchmarks.pruning.results import refuse_mixed
from benchmarks.quantization.bits import CONTROL
from benchmarks.quantization.joint import SEQUENTIAL, pairs
from benchmarks.quantization.modes import FORMATS
from benchmarks.quantization.peers import NAMES
from benchmarks.quantization.setting import SIZE
from boards.parts import FILE_PRECISIONS

KIB, MIB = 2**10, 2**20
LITTLE = 0.002
"""Of top-1: where less is lost than the images can tell, a share of it would be noise."""

TOOLS = {
    "onnxruntime-default": "onnxruntime's default",
    "nncf": "NNCF",
    "ai-edge-default": "ai-edge-quantizer's default",
}
MODES = (*FILE_PRECISIONS, *NAMES)
FORMAT_NAMES = {"onnx": "ONNX", "tflite": "TFLite"}

Row = Mapping[str, Any]


def complete(rows: Iterable[Row]) -> list[Row]:
    """Return the rows that are no trial on a few images."""
    return [row for row in rows if row["images"] is None]


def grouped(rows: Iterable[Row], *keys: str) -> dict[tuple[Any, ...], list[Row]]:
    """Put rows with equal values together, in the order in which they come."""
    found: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        found.setdefault(tuple(row[key] for key in keys), []).append(row)
    return found


def speed(row: Row) -> float:
    """Return how many times as fast as the float file of the same run a file is."""
    return float(row["float_latency_p50_ms"] / row["latency_p50_ms"])


def points_lost(row: Row) -> float:
    """Return the top-1 of the float network in torch minus the file's, in percentage points."""
    return 100.0 * float(row["torch_top1"] - row["top1"])


def mode_tables(rows: Sequence[Row]) -> str:
    """One table per network: every format and precision, other tools last."""
    header = (
        "format", "mode", "KiB", "top-1 %", "points lost", "agreement %", "p50 ms", "p90 ms",
        "times as fast as float", "peak memory MiB",
    )  # fmt: skip
    refuse_mixed(rows, ("network", "format", "size"), ("threads", "runs"))
    parts = []
    for (network,), mine in grouped(_of_size(rows, SIZE), "network").items():
        lines = [
            (
                FORMAT_NAMES[format],
                TOOLS.get(mode, f"`{mode}`"),
                _range(seeds, lambda row: row["size_bytes"] / KIB, 1),
                _range(seeds, lambda row: 100 * row["top1"], 2),
                _range(seeds, points_lost, 2),
                _range(seeds, lambda row: 100 * row["agreement"], 2),
                _range(seeds, lambda row: row["latency_p50_ms"], 3),
                _range(seeds, lambda row: row["latency_p90_ms"], 3),
                _range(seeds, speed, 2),
                _range(seeds, _memory_mib, 1),
            )
            for (format, mode), seeds in grouped(_in_order(mine), "format", "mode").items()
        ]
        parts.append(f"### {network}\n\n{table(header, lines, text_columns=2)}")
    return "\n".join(parts)


def large_table(rows: Sequence[Row]) -> str:
    """Latency of images of another size than those that were trained on."""
    header = ("network", "pixels", "format", "mode", "p50 ms", "p90 ms", "times as fast as float")
    found = [row for row in _in_order(rows) if row["size"] != SIZE]
    lines = [
        (
            network,
            str(size),
            FORMAT_NAMES[format],
            TOOLS.get(mode, f"`{mode}`"),
            _range(seeds, lambda row: row["latency_p50_ms"], 2),
            _range(seeds, lambda row: row["latency_p90_ms"], 2),
            _range(seeds, speed, 2),
        )
        for (network, size, format, mode), seeds in grouped(
            found, "network", "size", "format", "mode"
        ).items()
    ]
    return table(header, lines, text_columns=4) if lines else ""


def peer_table(rows: Sequence[Row]) -> str:
    """Our static INT8 file beside the best of the other tools, figure by figure."""
    header = (
        "network", "format", "KiB: ours", "best other", "top-1 %: ours", "best other",
        "times as fast as float: ours", "best other",
    )  # fmt: skip
    lines = []
    groups = grouped(_in_order(_of_size(rows, SIZE)), "network", "format")
    for (network, format), mine in groups.items():
        by_mode = grouped(mine, "mode")
        others = {name: by_mode[name,] for name in TOOLS if (name,) in by_mode}
        if ("int8",) not in by_mode or not others:
            continue
        cells = [network, FORMAT_NAMES[format]]
        for figure, decimals, sign in (
            (lambda row: row["size_bytes"] / KIB, 1, -1),
            (lambda row: 100 * row["top1"], 2, 1),
            (speed, 2, 1),
        ):
            best = max(others, key=lambda name: sign * _mean(others[name], figure))
            cells.append(_range(by_mode["int8",], figure, decimals))
            cells.append(f"{_range(others[best], figure, decimals)} ({TOOLS[best]})")
        lines.append(cells)
    return table(header, lines, text_columns=2) if lines else ""


def bits_table(rows: Sequence[Row]) -> str:
    """What rounding costs and what training with it wins back, on test images."""
    header = (
        "network", "precision", "epochs", "rate", "seeds", "float top-1 %", "rounded", "trained",
        "lost, points", "of which recovered %", "validation, trained",
    )  # fmt: skip
    keys = ("network", "precision", "epochs", "rate")
    lines = [
        (
            network,
            "no rounding" if precision == CONTROL else f"`{precision}`",
            str(epochs),
            f"{rate:g}",
            str(len(seeds)),
            *(_percent(seeds, key) for key in ("test_float", "test_rounded", "test_trained")),
            _range(seeds, lambda row: 100 * (row["test_float"] - row["test_rounded"]), 2),
            _recovered(seeds),
            _range(seeds, lambda row: 100 * row["validation_trained"], 2),
        )
        for (network, precision, epochs, rate), seeds in grouped(rows, *keys).items()
    ]
    return table(header, lines, text_columns=2) if lines else ""


def chosen(rows: Sequence[Row]) -> dict[tuple[Any, ...], dict[str, Row]]:
    """Return what each way chooses, by (network, share, seed) and way.

    The best on the validation images of the candidates within the budget, once all are measured.
    """
    refuse_mixed(rows, ("network", "share"), ("search_epochs", "finetune_epochs", "epochs"))
    found: dict[tuple[Any, ...], dict[str, Row]] = {}
    for key, mine in grouped(rows, "network", "share", "seed").items():
        if len(mine) < len(pairs()):
            continue
        fitting = [row for row in mine if row["weight_bytes"] <= row["budget_bytes"] * (1 + 1e-9)]
        ways = {
            "sequential": [row for row in fitting if row["assumed"] == SEQUENTIAL],
            "joint": [row for row in fitting if row["assumed"] == row["precision"]],
        }
        if all(ways.values()):
            found[key] = {
                way: max(some, key=lambda row: float(row["validation_trained"]))
                for way, some in ways.items()
            }
    return found


def joint_table(rows: Sequence[Row]) -> str:
    """Sequential and joint choice beside each other, by budget and seed."""
    header = (
        "network", "budget % of int8", "KiB", "seed", "sequential: precision", "top-1 %",
        "joint: precision", "top-1 %", "joint minus sequential, points",
    )  # fmt: skip
    lines = []
    for (network, share, seed), ways in chosen(rows).items():
        one, both = ways["sequential"], ways["joint"]
        lines.append(
            (
                network,
                f"{100 * share:g}",
                f"{one['budget_bytes'] / KIB:.1f}",
                str(seed),
                f"`{one['precision']}`",
                f"{100 * one['test_trained']:.2f}",
                f"`{both['precision']}`",
                f"{100 * both['test_trained']:.2f}",
                f"{100 * (both['test_trained'] - one['test_trained']):+.2f}",
            )
        )
    return table(header, lines) if lines else ""


def candidate_table(rows: Sequence[Row]) -> str:
    """All candidates of the joint and of the sequential choice."""
    header = (
        "network", "budget % of int8", "pruned for", "file", "seeds", "KiB", "parameters",
        "validation top-1 %: pruned", "rounded", "trained", "test, trained",
    )  # fmt: skip
    keys = ("network", "share", "assumed", "precision")
    lines = [
        (
            network,
            f"{100 * share:g}",
            f"`{assumed}`",
            f"`{precision}`",
            str(len(seeds)),
            _range(seeds, lambda row: row["weight_bytes"] / KIB, 1),
            _range(seeds, lambda row: row["parameters"], 0),
            *(
                _percent(seeds, key)
                for key in (
                    "validation_pruned",
                    "validation_rounded",
                    "validation_trained",
                    "test_trained",
                )
            ),
        )
        for (network, share, assumed, precision), seeds in grouped(rows, *keys).items()
    ]
    return table(header, lines, text_columns=4) if lines else ""


def baseline_table(rows: Sequence[Row]) -> str:
    """Networks that were trained for this page."""
    header = ("network", "epochs", "rate", "seed", "validation top-1 %", "test top-1 %")
    lines = [
        (
            row["network"],
            str(row["epochs"]),
            f"{row['rate']:g}",
            str(row["seed"]),
            f"{100 * row['validation_top1']:.2f}",
            f"{100 * row['test_top1']:.2f}",
        )
        for row in rows
    ]
    return table(header, lines) if lines else ""


def _in_order(rows: Iterable[Row]) -> list[Row]:
    """Return rows by format, then precisions, then other tools; networks stay as they come."""
    return sorted(rows, key=lambda row: (FORMATS.index(row["format"]), MODES.index(row["mode"])))


def _of_size(rows: Iterable[Row], size: int) -> list[Row]:
    return [row for row in rows if row["size"] == size]


def _memory_mib(row: Row) -> float:
    """Return the process's peak; onnxruntime's without its arena, which rounds up."""
    found = row["peak_rss_no_arena_bytes"] or row["peak_rss_bytes"]
    return float(found) / MIB


def _recovered(rows: Sequence[Row]) -> str:
    """Return the share of the mean loss that the mean gain is; nothing where little was lost."""
    lost = _mean(rows, lambda row: row["test_float"] - row["test_rounded"])
    gained = _mean(rows, lambda row: row["test_trained"] - row["test_rounded"])
    return f"{100 * gained / lost:.0f}" if lost >= LITTLE else ""


def _range(rows: Sequence[Row], figure: Callable[[Row], float], decimals: int) -> str:
    return with_range([figure(row) for row in rows], decimals)


def _percent(rows: Sequence[Row], key: str) -> str:
    return with_range([row[key] for row in rows], 2, scale=100)


def _mean(rows: Sequence[Row], figure: Callable[[Row], float]) -> float:
    return sum(map(figure, rows)) / len(rows)
