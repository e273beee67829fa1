"""Reading what pytest, coverage and mutmut say, and docs/testing.md made from it."""

from __future__ import annotations

import json
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from benchmarks.pruning.page.markdown import fill
from benchmarks.suite.mutants import by_module, draw, read_codes
from benchmarks.suite.page import PAGE, mutants_table, parts, repetitions_table
from benchmarks.suite.reach import by_package, summary
from benchmarks.suite.running import Case, read_cases, run_part

# As pytest 9 writes it.
JUNIT = """<testsuites><testsuite tests="4">
<testcase classname="tests.a.test_x" name="test_ok[1]" time="1.5" />
<testcase classname="tests.a.test_x" name="test_bad" time="0.25"><failure message="no" /></testcase>
<testcase classname="tests.a.test_x" name="test_broken" time="0"><error message="no" /></testcase>
<testcase classname="tests.a.test_x" name="test_later" time="0"><skipped message="no" /></testcase>
</testsuite></testsuites>"""


def test_outcomes_of_a_run(tmp_path: Path) -> None:
    file = tmp_path / "junit.xml"
    file.write_text(JUNIT)
    cases = read_cases(file)
    assert cases[0] == Case("tests.a.test_x.test_ok[1]", "passed", 1.5)
    assert [case.outcome for case in cases] == ["passed", "failed", "failed", "skipped"]
    assert summary("tests/a", cases) == {
        "part": "tests/a",
        "tests": 4,
        "skipped": 1,
        "failed": ["tests.a.test_x.test_bad", "tests.a.test_x.test_broken"],
        "seconds": 1.8,
    }


def test_a_part_runs_in_the_order_and_with_the_seeds_that_are_asked_for(tmp_path: Path) -> None:
    part = tmp_path / "test_part.py"
    part.write_text(
        "import os, pytest\n"
        "@pytest.mark.parametrize('number', range(6))\n"
        "def test_seed(number):\n    assert os.environ['PYTHONHASHSEED'] == '7'\n"
        "def test_failing():\n    assert False\n"
    )
    junit = tmp_path / "junit.xml"
    orders = []
    for seed in (1, 2):
        options = ("--random-order-bucket=module", f"--random-order-seed={seed}")
        run_part(str(part), junit, workers=1, options=options, PYTHONHASHSEED="7")
        cases = read_cases(junit)
        failed = [case.name for case in cases if case.outcome == "failed"]
        assert len(failed) == 1 and failed[0].endswith(".test_failing")
        orders.append([case.name for case in cases])
    assert orders[0] != orders[1]


def test_files_add_up_to_packages() -> None:
    def file(statements: int, covered: int) -> dict[str, dict[str, int]]:
        figures = {"num_statements": statements, "covered_lines": covered}
        return {"summary": {**figures, "num_branches": 4, "covered_branches": 2}}

    files = {"b/one.py": file(10, 9), "a/x.py": file(3, 3), "b/deep/two.py": file(5, 0)}
    a, b = by_package(files)
    assert (a["package"], a["num_statements"], a["covered_lines"]) == ("a", 3, 3)
    assert (b["package"], b["num_statements"], b["covered_lines"]) == ("b", 15, 9)
    assert (b["num_branches"], b["covered_branches"]) == (8, 4)


def test_mutants_by_module(tmp_path: Path) -> None:
    codes = {
        "p.m.x_f__mutmut_1": 1,
        "p.m.x_f__mutmut_2": 0,
        "p.m.x_g__mutmut_1": 33,
        "p.m.xǁKlassǁmethod__mutmut_1": -24,
        "p.n.x_f__mutmut_1": None,
    }
    meta = tmp_path / "mutants" / "p" / "m.py.meta"
    meta.parent.mkdir(parents=True)
    meta.write_text(json.dumps({"exit_code_by_key": codes}))
    assert read_codes(tmp_path) == codes
    modules = by_module(codes)
    assert modules == [
        {"module": "p.m", "mutants": 4, "killed": 2, "survived": 1, "untested": 1},
        {"module": "p.n", "mutants": 1, "killed": 0, "survived": 0, "untested": 0},
    ]
    assert "| `p.m` | 4 | 4 | 2 (50.0%) | 1 | 1 |" in mutants_table(modules)


@given(st.sets(st.text(), max_size=30), st.integers(0, 40), st.integers(0, 40), st.integers())
def test_a_larger_draw_holds_the_smaller(names: set[str], few: int, many: int, seed: int) -> None:
    few, many = sorted((few, many))
    drawn = draw(names, many, seed)
    assert drawn[:few] == draw(names, few, seed)
    assert len(set(drawn)) == len(drawn) == min(many, len(names))
    assert set(draw(names, None, seed)) == names


def test_a_test_that_failed_once_is_named() -> None:
    row = {"part": "tests/a", "tests": 1000, "failed": []}
    table = repetitions_table([row, {**row, "failed": ["test_x"]}])
    assert "| `tests/a` | `test_x` | 2 | 2,000 |" in table


def test_the_page_follows_the_results() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert fill(page, parts()) == page
