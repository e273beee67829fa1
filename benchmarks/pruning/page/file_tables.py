"""Tables of finished model files: the showcase, the tiny ones, and searches by latency."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.pruning import results
from benchmarks.pruning.page.comparison import difference_text
from benchmarks.pruning.page.markdown import number, table, with_range
from benchmarks.pruning.page.records import Row, right_answers
from benchmarks.pruning.statistics import paired_difference

TINY_BYTES = 96 * 1024
BUDGETS = {"macs": "MACs budget", "latency": "latency budget"}
"""Sides of a latency search in words."""


def file_name(file: Row) -> str:
    """Return what a file is: the network's role, precision and format."""
    formats = {"onnx": "ONNX", "tflite": "TFLite"}
    precision = {"float32": "float", "int8": "INT8"}[file["precision"]]
    return f"{file['role']} {precision} {formats[file['format']]}"


def showcase_table(row: Row) -> str:
    """Return every column of the showcase for the files of one slimmed network."""
    rows = [
        [
            file_name(file),
            number(file["size_bytes"], 2, scale=2**-20),
            number(file["size_factor"], 1),
            number(file["top1"], 2, scale=100),
            f"{file['difference_points']:+.2f} "
            f"[{file['difference_low']:+.2f}, {file['difference_high']:+.2f}]",
            number(file["precision_macro"], 2, scale=100),
            number(file["recall_macro"], 2, scale=100),
            number(file["eval_seconds"], 2),
            number(file["eval_factor"], 2),
            number(file["runtime_seconds"], 2),
            number(file["runtime_factor"], 2),
        ]
        for file in row["files"]
    ]
    header = [
        "file", "MiB", "smaller, times", "top-1 %", "minus the original, points", "precision %",
        "recall %", "evaluation s", "faster, times", "inside the runtime s", "faster, times",
    ]  # fmt: skip
    return table(header, rows)


def tiny_table(found: Sequence[Row]) -> str:
    """Return sizes and accuracies of small INT8 files beside ResNet-8's."""
    references = best_references(found)
    rows = []
    for row in sorted(found, key=lambda r: (r["network"] != "resnet8", -r["int8_test_top1"])):
        is_reference = row["network"] == "resnet8"
        rows.append(
            [
                f"`{row['run']}`",
                str(row["size_bytes"]),
                number(row["size_bytes"], 1, scale=1 / 1024),
                "yes" if row["size_bytes"] <= TINY_BYTES else "no",
                number(row["test_top1"], 2, scale=100),
                number(row["int8_test_top1"], 2, scale=100),
                "" if is_reference or not references else _above(row, references),
            ]
        )
    header = [
        "run", "bytes", "KiB", f"at most {TINY_BYTES // 1024}", "float top-1 %", "INT8 top-1 %",
        "minus ResNet-8, points",
    ]  # fmt: skip
    return table(header, rows)


def best_references(found: Sequence[Row]) -> list[Row]:
    """Return the ResNet-8s of the recipe that does best on the validation images, one per seed."""
    recipes: dict[tuple[float, ...], list[Row]] = {}
    for row in found:
        if row["network"] == "resnet8":
            recipe = row["epochs"], row["learning_rate"], row["weight_decay"]
            recipes.setdefault(recipe, []).append(row)
    return max(
        recipes.values(),
        key=lambda rows: float(np.mean([row["validation_top1"] for row in rows])),
        default=[],
    )


def _above(row: Row, references: Sequence[Row]) -> str:
    count = row["test_images"]
    ours = results.unpack(row["int8_test_right"], count)
    theirs = {r["seed"]: results.unpack(r["int8_test_right"], count) for r in references}
    found = paired_difference(dict.fromkeys(theirs, ours), theirs)
    return difference_text(found)


class Pair(NamedTuple):
    """What the two sides of a latency search have in common."""

    network: str
    method: str
    share: float
    search_epochs: int
    epochs: int
    learning_rate: float
    runtime: str


Sides = Mapping[str, Mapping[int, Row]]
"""Side -> seed -> row; the sides are "macs" and "latency"."""


def latency_pairs(found: Sequence[Row]) -> dict[Pair, Sides]:
    """Group the rows of latency_search.jsonl."""
    pairs: dict[Pair, dict[str, dict[int, Row]]] = {}
    for row in found:
        key = Pair(
            row["network"], row["variant"], row["share"], row["search_epochs"], row["epochs"],
            row["learning_rate"], row["runtime"],
        )  # fmt: skip
        side = "macs" if row["cost"] == "macs" else "latency"
        pairs.setdefault(key, {}).setdefault(side, {})[row["seed"]] = row
    return dict(pairs)


def latency_table(found: Sequence[Row]) -> str:
    """Return searches under a latency budget beside those under a MACs budget."""
    rows = []
    for key, sides in latency_pairs(found).items():
        for side, of_seed in sides.items():
            listed = [row for _, row in sorted(of_seed.items())]
            rows.append(
                [
                    f"{key.network}, {key.share * 100:g} % of the MACs, {key.runtime}",
                    f"`{key.method}`, {BUDGETS[side]}",
                    ", ".join(map(str, sorted(of_seed))),
                    with_range([row["latency_ms"] for row in listed], 4),
                    with_range([row["latency_ratio"] for row in listed], 3),
                    "yes" if all(row["same_latency"] for row in listed) else "no",
                    with_range([row["shares"]["macs"] for row in listed], 1, scale=100),
                    with_range([row["test_top1"] for row in listed], 2, scale=100),
                    _gain(sides, side, right_answers),
                    with_range([row["int8"]["top1"] for row in listed], 2, scale=100),
                    _gain(sides, side, _int8_answers),
                ]
            )
    header = [
        "target", "method", "seeds", "p50 ms", "of the MACs side's", "as fast", "MACs %",
        "float top-1 %", "gained, points", "INT8 top-1 %", "gained, points",
    ]  # fmt: skip
    return table(header, rows, text_columns=2)


def _gain(sides: Sides, side: str, answers: Callable[[Row], NDArray[np.bool_]]) -> str:
    if side == "macs" or not sides.keys() >= {"macs", "latency"}:
        return ""
    ours, theirs = (
        {seed: answers(row) for seed, row in sides[name].items()} for name in ("latency", "macs")
    )
    return difference_text(paired_difference(ours, theirs))


def _int8_answers(row: Row) -> NDArray[np.bool_]:
    return right_answers({"test_top1": row["int8"]["top1"], "test_right": row["int8"]["right"]})
