"""Make the tables of docs/deploy.md from results/deploy.json.

python -m benchmarks.deploy.page
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.pruning.page.markdown import fill, table

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "deploy.md"
RESULT = ROOT / "benchmarks" / "results" / "deploy.json"

Result = Mapping[str, Any]


def parts(result: Result) -> dict[str, str]:
    """Return the generated parts of the page."""
    return {"speed": _speed(result), "cuts": _cuts(result), "failures": _failures(result)}


def _speed(result: Result) -> str:
    speed = result["speed"]
    user = "a user without rights" if result["restricted_user"] else "the same user"
    rows = [(row["case"], str(row["code"]), f"{row['seconds']:.1f}") for row in speed["rows"]]
    home = [
        (f"`{file['file']}`", file["runtime"] or "none there", _p90(file["p90_ms"]),
         file["measured_on"], _top1(file["top1"], file["samples"]))
        for file in speed["in_report_json"]
    ]  # fmt: skip
    header = ("File", "Runtime", "p90, ms", "measured_on", "top-1 on packed images")
    gate = speed["gate"]
    return (
        f"{result['date']}, {result['ssh'].split(',')[0]}, {result['machine']}, logged in as "
        f"{user}; a bundle of {speed['bundle_bytes'] / 1024:.0f} KiB. Seconds are of the whole "
        "command, on a machine that was busy with other work.\n\n"
        f"{table(('What', 'Exit code', 'Seconds'), rows)}\n"
        "What `--bench` brought into `report.json`, from a Python without torch:\n\n"
        f"{table(header, home, text_columns=2)}\n"
        f"`report.html` was drawn anew and {'shows' if speed['in_report_html'] else 'lacks'} the "
        "device. `gate DIR --require-measured` with limits of 5 ms and 300 MiB then says, with "
        f"code {gate['code']}:\n\n```\n" + "\n".join(gate["lines"]) + "\n```\n"
    )


def _top1(top1: float | None, samples: int | None) -> str:
    return "-" if top1 is None else f"{100 * top1:.2f} % of {samples}"


def _cuts(result: Result) -> str:
    cuts = result["cuts"]
    rows = [
        (str(row["point"]), row.get("killed", "nothing"), _point(row), row["device_has"],
         str(row["leftovers"]))
        for row in cuts["rows"]
    ]  # fmt: skip
    header = ("Point", "Killed", "At", "The device has", "Leftovers")
    return (
        f"A bundle with {cuts['bytes'] / 2**20:.0f} MiB more, over a line of "
        f"{cuts['bytes_per_s'] / 2**20:.0f} MiB/s. The digest is computed anew from all files that "
        "`current` leads to; leftovers are folders in `versions/` that no link names, which the "
        "next deploy removes. A kill takes effect a little after the point at which it is sent.\n\n"
        f"{table(header, rows, text_columns=2)}"
    )


def _point(row: Mapping[str, Any]) -> str:
    if "carried_share" not in row:
        return ""
    after = f", then {row['waited_s']} s" if row["waited_s"] else ""
    return f"{min(row['carried_share'], 1):.0%} sent{after}"


def _failures(result: Result) -> str:
    rows = [
        (row["case"], str(row["code"]), row["message"].replace("|", "\\|"),
         row["device_has"])
        for row in result["failures"]
    ]  # fmt: skip
    header = ("Case", "Exit code", "Message", "The device has")
    return table(header, rows, text_columns=4)


def _p90(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def main() -> None:
    """Write the page."""
    result = json.loads(RESULT.read_text(encoding="utf-8"))
    PAGE.write_text(fill(PAGE.read_text(encoding="utf-8"), parts(result)), encoding="utf-8")


if __name__ == "__main__":
    main()
