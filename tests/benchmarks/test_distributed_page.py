"""The page says what the results say; scaling on paper agrees with its limits."""

from __future__ import annotations

import pytest

from benchmarks.distributed.page import PAGE, RESULT, parts, step_seconds
from benchmarks.pruning.page.markdown import fill
from benchmarks.pruning.results import rows


def test_the_page_is_that_of_the_results() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert fill(page, parts(list(rows(RESULT)))) == page


def test_scaling_on_paper() -> None:
    alone = {"fastest_ms": 800.0}
    sent = {"sent_bytes": 1e6, "calls": 10}
    assert step_seconds(alone, sent, 1, 1e6, 0.1) == pytest.approx(0.8)
    # two processes: half the work, two hops for each call, all bytes once out and once in
    assert step_seconds(alone, sent, 2, 1e6, 0.01) == pytest.approx(0.4 + 2 * 10 * 0.01 + 1.0)
    assert step_seconds(alone, sent, 4, 1e12, 0.0) == pytest.approx(0.2, rel=1e-4)
    assert step_seconds(alone, sent, 1000, 1e6, 0.0) == pytest.approx(2.0, rel=1e-2)


def test_the_front_holds_what_no_trial_beats() -> None:
    def trial(name: str, size_bytes: int, top1: float) -> dict[str, object]:
        figures = {"size_bytes": size_bytes, "top1": top1, "baseline_top1": 1.0, "verdict": "pass"}
        return {"kind": "trial", "name": name, **figures}

    sweep = {"kind": "sweep", "trials": 4, "code": 0, "killed": "b", "seconds": 9,
             "killed_resumed": "resumed"}  # fmt: skip
    found = [trial("a", 10, 0.5), trial("b", 20, 0.9), trial("c", 20, 0.8), trial("d", 30, 0.9)]
    lines = parts([sweep, *found])["sweep"].splitlines()
    assert [line.split(" | ")[0] for line in lines if "front" in line] == ["| a", "| b"]
