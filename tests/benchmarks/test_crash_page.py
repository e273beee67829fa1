"""The pages say what the results say, and one bad row would show."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.crash.page import REPRODUCING, RESULT, SAFETY, pages
from benchmarks.pruning.page.markdown import fill
from benchmarks.pruning.results import rows

KILL: dict[str, Any] = {
    "kind": "kill", "job": "training", "run": 0, "signal": "SIGTERM", "at": "time",
    "stage": "search", "code": 143, "code_as_documented": True, "lines": 1, "differences": [],
    "half_written": [],
}  # fmt: skip


@pytest.mark.parametrize("path", [SAFETY, REPRODUCING])
def test_the_page_is_that_of_the_results(path: Any) -> None:
    page = path.read_text(encoding="utf-8")
    assert fill(page, pages([*rows(RESULT)])[path]) == page


@pytest.mark.parametrize(
    ("change", "last"),
    [
        ({}, ("2", "2", "2")),
        ({"differences": ["bundle/slim.int8.onnx has other bytes"]}, ("2", "2", "1")),
        ({"half_written": ["x.part"]}, ("2", "2", "1")),
        ({"code_as_documented": False, "code": 3}, ("2", "1", "2")),
    ],
)
def test_a_bad_run_lowers_the_count(change: dict[str, Any], last: tuple[str, ...]) -> None:
    after = {**KILL, "run": 1, "stage": "after codebook", **change}
    text = pages([KILL, after])[SAFETY]["kills"]
    stages = [line.split(" | ")[0].removeprefix("| ") for line in text.splitlines()[4:]]
    assert stages == ["search", "publishing", "all"]
    assert text.rstrip().endswith(f"| {' | '.join(last)} |")
