"""Lines through the measured peaks, and a page that says what the results say."""

from __future__ import annotations

import pytest

from benchmarks.bench_large import RESULTS, Row
from benchmarks.large_page import PAGE, parts, read_rows, slopes
from benchmarks.pruning.page.markdown import fill


def row(stage: str, weight_bytes: int) -> Row:
    """2 copies of the weights and 1 GB, 10 s a GB and 3 s."""
    return Row(
        blocks=1,
        stage=stage,
        weight_bytes=weight_bytes,
        peak_rss_bytes=0,
        peak_anonymous_bytes=2 * weight_bytes + 10**9,
        seconds=1.0,
        cpu_seconds=10 * weight_bytes / 1e9 + 3,
        exit_code=0,
        last_line="",
        threads=1,
        load_average=1.0,
        host="any",
    )


def test_lines_are_found_again_and_reach_beyond_what_was_measured() -> None:
    sizes = (10**8, 10**9, 2 * 10**9)
    lines = slopes([row("int8", size) for size in sizes] + [row("gate", 10**8)])
    assert list(lines) == ["int8"]  # one point makes no line
    assert lines["int8"].memory == pytest.approx(2)
    assert lines["int8"].memory_gb(60) == pytest.approx(121)
    assert lines["int8"].hours(60) == pytest.approx(603 / 3600)


def test_the_page_is_made_of_the_results() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert fill(page, parts(read_rows(RESULTS))) == page
