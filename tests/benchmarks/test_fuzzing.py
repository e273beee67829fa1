"""Fuzz targets: their seeds are good files, their mutations keep the form, the table is current."""

from __future__ import annotations

import contextlib
import random
from pathlib import Path

import pytest

from benchmarks.fuzz.__main__ import RESULTS
from benchmarks.fuzz.page import PAGE, part
from benchmarks.fuzz.targets import TARGETS, fresh_folder
from benchmarks.fuzz.watch import Watch
from benchmarks.pruning import results
from benchmarks.pruning.page.markdown import fill


@pytest.mark.parametrize("name", TARGETS)
def test_a_seed_is_read_and_what_is_made_of_it_is_read_or_refused(
    tmp_path: Path, name: str
) -> None:
    target = TARGETS[name]
    folder = fresh_folder(tmp_path / name)
    parse, errors = target.prepare(folder)
    path, accepted = folder / target.file, 0
    seeds = target.seeds()
    for content in seeds:
        path.write_bytes(content)
        try:
            parse(path)
            accepted += 1
        except errors:
            pass
    assert accepted
    chance, tries, mutated = random.Random(0), 8 if target.mutate else 0, 0
    for _ in range(tries):
        with contextlib.suppress(Exception):  # of a seed without that form
            path.write_bytes(target.mutate(chance.choice(seeds), chance))
            mutated += 1
        with contextlib.suppress(errors):
            parse(path)
    assert mutated >= tries / 2


def test_the_watch_sees_what_is_written_outside(tmp_path: Path) -> None:
    watch = Watch(tmp_path / "mine")
    (tmp_path / "mine").mkdir()
    with watch.armed():
        (tmp_path / "mine" / "inside").write_text("x")
        (tmp_path / "outside").write_text("x")
        (tmp_path / "outside").read_text()
    (seen,) = watch.seen
    assert "outside" in seen


def test_the_table_of_the_page() -> None:
    row = {"target": "sums", "inputs": 2000, "accepted": 1, "refused": 3, "findings": {},
           "slowest_cpu_s": 0.5, "grown_mib": 1.0}  # fmt: skip
    bad = {**row, "findings": {"x": 1}, "slowest_cpu_s": 9.0}
    table = part([row, bad, row, {**row, "slowest_cpu_s": 0.7}])
    assert "| `SHA256SUMS` | 4,000 | 2 | 6 | 1 | 0.7 | 1 |" in table


def test_page_follows_the_results() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert fill(page, {"fuzzing": part(results.rows(RESULTS))}) == page
