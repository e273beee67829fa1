"""Make the tables of docs/testing.md from the results of this folder's scripts.

python -m benchmarks.suite.page
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from benchmarks.pruning.page.markdown import fill, table
from benchmarks.pruning.results import rows
from benchmarks.suite import mutants, reach, repetitions
from benchmarks.suite.running import PARTS, ROOT

PAGE = ROOT / "docs" / "testing.md"

Row = Mapping[str, Any]


def parts() -> dict[str, str]:
    """Return the generated parts of the page."""
    suite = json.loads(reach.RESULT.read_text(encoding="utf-8"))
    changes = json.loads(mutants.RESULT.read_text(encoding="utf-8"))
    return {
        "coverage": coverage_table(suite["packages"]),
        "parts": parts_table(suite["parts"]),
        "slowest": slowest_table(suite),
        "mutants": mutants_table(changes["modules"]),
        "repetitions": repetitions_table(rows(repetitions.RESULT)),
    }


def coverage_table(packages: Iterable[Row]) -> str:
    """Statements and branches by package, of those whose tests were run."""
    cells = [
        (
            f"`{row['package']}`",
            f"{row['num_statements']:,}",
            f"{row['covered_lines'] / row['num_statements']:.1%}",
            f"{row['num_branches']:,}",
            f"{row['covered_branches'] / row['num_branches']:.1%}",
        )
        for row in packages
        if row["covered_lines"]
    ]
    return table(("Package", "Statements", "reached", "Branches", "taken"), cells)


def parts_table(found: Sequence[Row]) -> str:
    """Tests by folder, and the folders that were left out."""
    cells = [
        (f"`{row['part']}`", str(row["tests"]), str(row["skipped"]), str(len(row["failed"])))
        for row in found
    ]
    missing = sorted(set(PARTS) - {row["part"] for row in found})
    note = f"\nNot in this run: {', '.join(f'`{part}`' for part in missing)}.\n"
    return table(("Part", "Tests", "skipped", "failed"), cells) + note * bool(missing)


def slowest_table(suite: Row) -> str:
    """The slowest tests, and how busy the machine was."""
    cells = [
        (f"`{row['test'].removeprefix('tests.')}`", f"{row['seconds']:.1f}")
        for row in suite["slowest"]
    ]
    load = f"Load average {suite['load_average']} on {suite['cores']} cores.\n\n"
    return load + table(("Test", "Seconds"), cells)


def mutants_table(modules: Sequence[Row]) -> str:
    """What became of mutants, by module, and of all of the channel graph."""
    graph = [row for row in modules if row["module"].startswith(mutants.GRAPH)]
    cells = [_mutants_row(f"`{row['module']}`", [row]) for row in modules]
    cells.append(_mutants_row("**the channel graph**", graph))
    return table(("Module", "Mutants", "judged", "killed", "survived", "no test"), cells)


def _mutants_row(title: str, found: Iterable[Row]) -> tuple[str, ...]:
    total, killed, survived, untested = (
        sum(row[field] for row in found) for field in ("mutants", "killed", "survived", "untested")
    )
    judged = killed + survived + untested
    share = f"{killed} ({killed / judged:.1%})" if judged else "0"
    return title, str(total), str(judged), share, str(survived), str(untested)


def repetitions_table(found: Iterable[Row]) -> str:
    """Repetitions by folder, and the tests that failed in some of them."""
    by_part: dict[str, list[Row]] = {}
    for row in found:
        by_part.setdefault(row["part"], []).append(row)
    cells = []
    for part, repeated in sorted(by_part.items()):
        failed = sorted({name for row in repeated for name in row["failed"]})
        runs = sum(row["tests"] for row in repeated)
        names = ", ".join(f"`{name}`" for name in failed) or "none"
        cells.append((f"`{part}`", names, str(len(repeated)), f"{runs:,}"))
    return table(("Part", "Failed at times", "Repetitions", "Tests run"), cells, text_columns=2)


def main() -> None:
    """Write the page."""
    PAGE.write_text(fill(PAGE.read_text(encoding="utf-8"), parts()), encoding="utf-8")


if __name__ == "__main__":
    main()
