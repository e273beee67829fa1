"""Tables beside the comparison: screening, the estimators, the cost of a step, speed-ups."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.pruning.page.comparison import title
from benchmarks.pruning.page.markdown import number, table
from benchmarks.pruning.page.records import Entry, Row, by_target


def baseline_table(baselines: Sequence[Row]) -> str:
    """Return the unpruned networks, and whether their validation accuracy had become flat."""
    rows = []
    for row in baselines:
        at = {point["epoch"]: point.get("validation_top1") for point in row["curves"]}
        rows.append(
            [
                row["network"],
                str(row["epochs"]),
                number(at.get(row["epochs"] - 5), 2, scale=100),
                number(row["validation_top1"], 2, scale=100),
                number(row["test_top1"], 2, scale=100),
            ]
        )
    header = [
        "network",
        "epochs",
        "validation top-1 % 5 epochs before",
        "at the end",
        "test top-1 %",
    ]
    return table(header, rows)


def screening_table(entries: Sequence[Entry]) -> str:
    """Return validation accuracies per target, the best first; no test image was read for them."""
    rows = []
    for target, found in by_target(entries).items():
        runs = [(entry.method, row) for entry in found for row in entry.rows.values()]
        # By run: means over other seeds would not compare.
        for method, row in sorted(runs, key=lambda run: -run[1]["validation_top1"]):
            search = row["search_epochs"]
            rows.append(
                [
                    title(target),
                    f"`{method}`",
                    number(row["validation_top1"], 2, scale=100),
                    f"{search} + {target.epochs - search}",
                    f"{row['learning_rate']:g}",
                    number(row["shares"]["macs"], 1, scale=100),
                    number(row["shares"]["weight_bytes"], 1, scale=100),
                    number(sum(row["seconds"].values()), 0),
                    str(row["seed"]),
                    row["environment"]["commit"],
                ]
            )
    if not rows:
        return ""
    header = [
        "target", "method", "validation top-1 %", "epochs", "rate", "MACs %", "weight bytes %",
        "seconds", "seed", "commit",
    ]  # fmt: skip
    return table(header, rows, text_columns=2)


def estimator_tables(content: Row) -> str:
    """Return bias and noise of the gradient's estimators, one row each, a column per policy."""
    cells = {(row["policy"], row["estimator"]): row for row in content["rows"]}
    policies = list(dict.fromkeys(row["policy"] for row in content["rows"]))
    estimators = list(dict.fromkeys(row["estimator"] for row in content["rows"]))

    def pivot(name: str, text: Any) -> str:
        rows = [[e, *(text(cells[p, e]) if (p, e) in cells else "" for p in policies)]
                for e in estimators]  # fmt: skip
        return table([name, *policies], rows)

    return "\n".join(
        [
            pivot("bias", lambda r: f"{r['bias']:.3f} ± {r['bias_uncertainty']:.3f}"),
            pivot("noise of one batch", lambda r: f"{r['noise']:.2f}"),
        ]
    )


def worth_table(content: Row) -> str:
    """Return how near each estimator comes to the worth of channels, at each moment of a search."""
    rows = [
        [
            row["estimator"],
            number(moment["load"], 2),
            str(moment["undecided"]),
            number(row["order"], 2),
            number(row.get("correlation"), 2),
            str(row.get("wrong_sign", "")),
            number(row.get("median_signal_to_noise"), 1),
        ]
        for moment in content["moments"]
        for row in moment["rows"]
    ]
    header = [
        "estimator", "expected cost over its limit", "undecided agents",
        "rank correlation, worth per cost", "correlation, worth", "wrong signs",
        "signal over noise",
    ]  # fmt: skip
    return table(header, rows)


def step_table(content: Row) -> str:
    """Return what a step of the agents costs beside a plain training step."""
    rows = [
        [
            network,
            number(row["plain"], 1),
            number(row["decore"], 1),
            number(row["ratio"], 3),
            number(row["plain+teacher"], 1),
            number(row["decore+teacher"], 1),
            number(row["ratio_with_teacher"], 3),
        ]
        for network, row in content["step"].items()
    ]
    both = ["plain ms", "DECORE ms", "ratio"]
    return table(["network", *both, *(f"with teacher: {name}" for name in both)], rows)


def shrunk_table(content: Row) -> str:
    """Return the time of a plain step on what is left of a network."""
    rows = [
        [
            network,
            number(row["macs_share"], 1, scale=100),
            number(row["step_ms"], 1),
            number(row["time_share"], 1, scale=100),
        ]
        for network, found in content["shrunk"].items()
        for row in found
    ]
    return table(["network", "MACs left %", "step ms", "of the whole network's step %"], rows)


def speedup_table(content: Row) -> str:
    """Return realized speed-ups of files with fewer MACs."""
    rows = []
    for row in content["rows"]:
        low, high = row["speedup_quartiles"]
        rows.append(
            [
                row["network"],
                row["format"],
                row["precision"],
                number(row["size_bytes"], 2, scale=2**-20),
                number(row["latency_p50_ms"], 3),
                number(row["latency_p90_ms"], 3),
                number(row["macs_factor"], 2),
                f"{row['speedup']:.2f} [{low:.2f}, {high:.2f}]",
                number(row["fraction"], 2),
                number(row["wanted"], 2),
            ]
        )
    header = [
        "network", "format", "precision", "MiB", "p50 ms", "p90 ms", "fewer MACs, times",
        "faster, times", "share of the ideal", "wanted",
    ]  # fmt: skip
    return table(header, rows, text_columns=3)
