"""Make the table of SECURITY.md from results/fuzz.jsonl: `python -m benchmarks.fuzz.page`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.fuzz.__main__ import RESULTS, since_the_last_finding
from benchmarks.fuzz.targets import TARGETS
from benchmarks.pruning import results
from benchmarks.pruning.page.markdown import fill, table

PAGE = Path(__file__).parents[2] / "SECURITY.md"
HEADER = (
    "What",
    "inputs",
    "read",
    "refused",
    "mended before",
    "slowest, s of CPU",
    "most memory, MiB",
)


def part(rows: Iterable[Mapping[str, Any]]) -> str:
    """Return the table: of each target the sessions since what they found was mended."""
    found = list(rows)
    lines = []
    for name, target in TARGETS.items():
        all_of_it = [row for row in found if row["target"] == name]
        if own := since_the_last_finding(all_of_it):
            sums = (sum(row[key] for row in own) for key in ("inputs", "accepted", "refused"))
            mended = {text for row in all_of_it for text in row["findings"]}
            slowest, most = (max(r[key] for r in own) for key in ("slowest_cpu_s", "grown_mib"))
            numbers = (*(f"{n:,}" for n in sums), str(len(mended)), f"{slowest:g}", f"{most:g}")
            lines.append((target.reads, *numbers))
    return table(HEADER, lines)


def main() -> None:
    """Write the page anew."""
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(fill(text, {"fuzzing": part(results.rows(RESULTS))}), encoding="utf-8")


if __name__ == "__main__":
    main()
