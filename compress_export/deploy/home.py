"""What comes home: one table, one JSON, and the figures in the run's own report.json."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress_export.deploy.many import Outcome
from compress_export.errors import UsageError
from compress_export.exit_codes import ExitCode
from compress_export.shown import print_line
from compress_export.sizes import mib
from compress_export.turns import turn_at
from compress_export.whole_files import write_whole
from runtime_bench.plain_json import read_json

if TYPE_CHECKING:
    from rich.console import Console


def print_outcomes(outcomes: Sequence[Outcome], console: Console, errors: Console) -> None:
    """Show a row for each device, and below the table what there is to say of it.

    Args:
        errors: gets the lines of devices where something went wrong.
    """
    from rich.table import Table
    from rich.text import Text

    table = Table()
    for column in ("device", "result", "version", "sent", "s", "p90 ms on the device"):
        table.add_column(column, overflow="fold")
    for one in outcomes:
        table.add_row(*(Text(cell) for cell in _row(one)))
    console.print(table)
    for one in outcomes:
        for note in one.notes:
            place = console if one.code is ExitCode.PASSED else errors
            line = f"{one.destination.text}: {note}"
            print_line(place, line)


def outcomes_json(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Return the same as plain JSON values, documented in docs/deploy.md."""
    return {
        "schema_version": 1,
        "devices": [
            {
                "device": one.destination.text,
                "code": int(one.code),
                "version": one.deployed.version if one.deployed else None,
                "sent_bytes": one.deployed.sent_bytes if one.deployed else None,
                "seconds": one.seconds,
                "notes": list(one.notes),
                "measured": one.measured,
            }
            for one in outcomes
        ],
    }


def bring_home(outcomes: Sequence[Outcome], bundle: Path) -> Path | None:
    """Append what was measured to report.json beside the bundle; None where there is none.

    The file is replaced by one rename, and deploys take turns at it.

    Raises:
        UsageError: what is there is no report.
    """
    path = bundle.parent / "report.json"
    entries = [one.measured for one in outcomes if one.measured is not None]
    if not entries or not path.is_file():
        return None
    with turn_at(path):
        try:
            report = read_json(path)
            report["device_measurements"] = [*report.get("device_measurements", ()), *entries]
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise UsageError(
                f"{path}: no report that figures can be added to ({error}); --json FILE keeps them"
            ) from None
        return write_whole(path, json.dumps(report, indent=2, allow_nan=False) + "\n")


def _row(one: Outcome) -> tuple[str, ...]:
    version, sent = ("", "") if one.deployed is None else _place(one)
    p90 = ", ".join(
        f"{file['name']} {file['latency_ms']['p90']:.3g}"
        for file in (one.measured or {}).get("measurements", ())
        if file["latency_ms"]
    )
    return (one.destination.text, _result(one), version, sent, f"{one.seconds:.1f}", p90 or "-")


def _place(one: Outcome) -> tuple[str, str]:
    assert one.deployed is not None
    moment, _, digest = one.deployed.version.partition("-")
    return f"{moment}-{digest[:8]}", f"{mib(one.deployed.sent_bytes)} MiB"


def _result(one: Outcome) -> str:
    words = {0: "ok", 1: "budget missed", 3: "failed", 4: "not measured"}
    word = words[int(one.code)]
    return f"{word}, not switched" if one.deployed is None else word
