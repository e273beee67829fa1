"""Make the tables of docs/crash-safety.md and docs/reproducing.md from results/crash.jsonl.

python -m benchmarks.crash.page
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.pruning.page.markdown import fill, table
from benchmarks.pruning.results import rows

ROOT = Path(__file__).parents[2]
RESULT = ROOT / "benchmarks" / "results" / "crash.jsonl"
SAFETY, REPRODUCING = ROOT / "docs" / "crash-safety.md", ROOT / "docs" / "reproducing.md"
_TEMPORARY = re.compile(r"/tmp/\S+\.log")
SIGNALS = ("SIGKILL", "SIGTERM", "SIGINT")

Rows = Sequence[dict[str, Any]]


def pages(found: Rows) -> dict[Path, dict[str, str]]:
    """Return the generated parts of each page."""
    kinds = {kind: [r for r in found if r["kind"] == kind] for kind in ("kill", "shortage")}
    repeats = [row for row in found if row["kind"] == "repeat"]
    return {
        SAFETY: {"kills": _kills(kinds["kill"]), "shortages": _shortages(kinds["shortage"])},
        REPRODUCING: {"repeats": _repeats(repeats)},
    }


def _kills(found: Rows) -> str:
    if not found:
        return "Not measured yet."
    stages = sorted({_stage(row) for row in found}, key=_order)
    body = []
    for stage in [*stages, "all"]:
        mine = [row for row in found if stage in ("all", _stage(row))]
        by_signal = Counter(row["signal"] for row in mine)
        identical = sum(not row["differences"] and not row["half_written"] for row in mine)
        documented = sum(row["code_as_documented"] for row in mine)
        body.append(
            (stage, *(str(by_signal[name]) for name in SIGNALS), str(len(mine)),
             str(documented), str(identical))
        )  # fmt: skip
    runs = len({(row["job"], row["run"]) for row in found})
    at_files = sum(row["at"] == "file operation" for row in found)
    clean = [row for row in found if row["signal"] != "SIGKILL" and row["code"] in (130, 143)]
    one_line = sum(row["lines"] == 1 for row in clean)
    header = ("Stage", *SIGNALS, "All", "Exit code as documented", "Identical in the end")
    return (
        f"{len(found)} signals in {runs} runs of small jobs, {at_files} of them right before an "
        f"operation on a file, the others at a random time. {one_line} of {len(clean)} clean stops "
        f"said exactly one line.\n\n{table(header, body)}"
    )


def _stage(row: dict[str, Any]) -> str:
    """Return a stage's name; what comes after the bench is the publishing."""
    stage = str(row["stage"]) or "start"
    return "publishing" if _ends_job(stage, row["job"]) else stage


def _ends_job(stage: str, job: str) -> bool:
    return stage == ("after codebook" if job == "training" else "after bench")


def _order(stage: str) -> tuple[int, bool]:
    names = ("start", "load", "baseline", "search", "finetune", "codebook", "export", "first aid",
             "bench", "publishing")  # fmt: skip
    return names.index(stage.removeprefix("after ")), stage.startswith("after ")


def _shortages(found: Rows) -> str:
    if not found:
        return "Not measured yet."
    body = [
        (row["case"], row["job"], row["point"], str(row["stage"]) or "start", str(row["code"]),
         _said(row),
         row.get("resumed", "not needed"),
         "no: " + row["differences"][0].splitlines()[0][:80] if row["differences"] else "yes")
        for row in found
    ]  # fmt: skip
    header = ("Case", "Job", "At", "Stage", "Code", "Said", "Then", "Identical")
    return table(header, body, text_columns=len(header))


def _said(row: dict[str, Any]) -> str:
    text = str(row["said"]).removeprefix("compress-export: ").replace("|", "\\|") or "-"
    text = _TEMPORARY.sub("a temporary file", text)
    return f"hung until SIGTERM: {text}" if row.get("hung") else text


def _repeats(found: Rows) -> str:
    if not found:
        return "Not measured yet."
    jobs = dict.fromkeys(row["job"] for row in found)
    body = []
    for job in jobs:
        mine = [row for row in found if row["job"] == job]
        different = sorted({line for row in mine for line in row["differences"]})
        body.append((job, str(len(mine) + 1), "; ".join(different) or "nothing"))
    return table(("Job", "Runs", "What differs"), body, text_columns=3)


def main() -> None:
    """Write both pages."""
    for path, parts in pages([*rows(RESULT)]).items():
        path.write_text(fill(path.read_text(encoding="utf-8"), parts), encoding="utf-8")


if __name__ == "__main__":
    main()
