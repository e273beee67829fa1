"""What a device answers to `--bench`, read as a report of the gate, and judged here."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from compress_export.gate.reported import measurement_of, place_of
from compress_export.shown import printable_tree
from runtime_bench.plain_json import parse_json

if TYPE_CHECKING:
    from runtime_bench import Manifest


@dataclass(frozen=True)
class Expected:
    """What the bundle that a device measured says itself.

    Attributes:
        bundle: its manifest: files, sums, budgets.
        baseline_top1: of the float baseline on the packed images, a fraction; None without them.
    """

    bundle: Manifest
    baseline_top1: float | None = None


def read_answer(content: bytes, expected: Expected) -> dict[str, Any]:
    """Return what `runtime-bench --json` wrote on a device, with the verdict as it is reached here.

    Raises:
        ValueError, KeyError, TypeError, AttributeError: it is something else, has keys of another
            kind, or isn't about exactly the bundle's files.
    """
    from runtime_bench import overall, slower_int8, verdict

    said = printable_tree(parse_json(content))
    place_of("device", said["host"])
    items = [measurement_of(entry) for entry in said["measurements"]]
    wanted = sorted((file.name, file.sha256) for file in expected.bundle.files)
    if sorted((item.name, item.sha256) for item in items) != wanted:
        raise ValueError("figures of other files than the bundle's")
    checks = verdict(items, expected.bundle, baseline_top1=expected.baseline_top1)
    figures = {
        "host": dict(said["host"]),
        "measurements": [item.to_json() for item in items],
        "checks": [check.to_json() for check in checks],
        "verdict": overall(checks),
        "warnings": list(slower_int8(items)),
    }
    json.dumps(figures, allow_nan=False)
    return figures
