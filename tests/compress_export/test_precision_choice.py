"""--precision auto: which file is taken, and a job that takes one."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image
from tiny_jobs import NETWORK, QUICK, Ended, run_here

from boards import load_board, shipped_boards
from boards.parts import FILE_PRECISIONS
from compress_export.errors import UsageError
from compress_export.exporting import chosen_formats, chosen_precisions, refuse_idle_rules
from compress_export.job_file import resolve_options
from compress_export.options import JobOptions
from compress_export.precision_choice import Candidate, _candidate, choose, possible
from runtime_bench import Measurement

ROOT = Path(__file__).parents[2]
Job = Callable[..., Ended]


def candidate(
    precision: str,
    ms: float | None = 1.0,
    size: int = 100,
    score: float | None = 0.9,
    missed: tuple[str, ...] = (),
    *,
    counts: bool = True,
) -> Candidate:
    path = f"slim.{precision}.onnx"
    return Candidate(path, "onnx", precision, size, ms, counts, score, missed)


def test_a_budget_counts_more_than_speed_and_speed_more_than_size() -> None:
    fast = candidate("int8", 1.0, missed=("accuracy_drop_points",))
    exact = candidate("float32", 4.0, 400)
    half = candidate("float16", 3.0, 200)
    small = candidate("int4-weights", 3.5, 50)
    assert choose([fast, exact, half, small], "int8") is half
    assert choose([fast, exact], "int8") is exact
    assert choose([fast], "int8") is fast


def test_equal_speed_leaves_the_smallest_and_then_the_most_accurate() -> None:
    fast, near = candidate("int8", 1.00, 100), candidate("int4-weights", 1.04, 60)
    assert choose([fast, near, candidate("int2-weights", 1.06, 30)], "int8") is near
    better = candidate("int8-weights", 1.02, 60, score=0.95)
    assert choose([fast, near, better], "int8") is better


def test_foreign_latencies_decide_nothing() -> None:
    own = candidate("int8", 9.0, counts=False)
    others = [candidate("float32", 1.0, counts=False), candidate("int4-weights", None, 10)]
    assert choose([*others, own], "int8") is own
    inaccurate = candidate("int8", 9.0, missed=("accuracy_drop_points",), counts=False)
    assert choose([*others, inaccurate], "int8").precision == "int4-weights"  # the smallest left


@pytest.mark.parametrize(
    ("board", "shipped"),
    [("stm32f746", "float32"), ("stm32f746", "float16"), ("esp32s3", "float16")],
)
def test_a_float_precision_that_the_board_lacks_is_for_comparison_only(
    board: str, shipped: str
) -> None:
    found = load_board(board)
    own = found.target_precision
    with pytest.raises(
        UsageError, match=rf"{shipped}: the first one goes .*{board} is for .*{own}"
    ):
        chosen_precisions(JobOptions(board=board, precision=f"{shipped},{own}"), found, ["tflite"])
    options = JobOptions(board=board, precision=f"{own},{shipped}")
    assert chosen_precisions(options, found, ["tflite"]) == (own, shipped)


def test_precisions_that_the_board_has_may_go_to_it() -> None:
    for board, format, precision in (
        ("coral", "tflite", "float32"),
        ("jetson-nano", "onnx", "float16"),
        ("rpi5", "tflite", "float16"),
        ("x86-64", "onnx", "int8-dynamic"),
        ("jetson-nano", "onnx", "int8-weights"),
    ):
        options = JobOptions(board=board, precision=precision)
        assert chosen_precisions(options, load_board(board), [format]) == (precision,)


def test_boards_have_what_their_runtimes_can_run() -> None:
    assert set(possible(load_board("x86-64"), "tflite")) == set(FILE_PRECISIONS)
    assert {"float32", "float16"} <= set(possible(load_board("x86-64"), "onnx"))
    assert possible(load_board("stm32f746"), "tflite") == ["int8"]
    assert "int2-weights" not in possible(load_board("x86-64"), "onnx")
    for name in ("jetson", "rpi5", "coral"):
        board = load_board(name)
        for format in board.formats:
            assert possible(board, format)[0] == board.target_precision


def test_a_drop_of_exactly_one_point_is_within_it() -> None:
    """0.90 - 0.89 is more than 0.01 in floating point."""
    board = SimpleNamespace(budgets=SimpleNamespace(limits=lambda: {}))
    job: Any = SimpleNamespace(board=board, baseline_score=0.90, branch="")
    item = Measurement(
        "slim.int8.onnx", "slim", "bundle", "slim.int8.onnx", "onnx", "int8", 1, "aa", None, None,
        1, "host", host_matches_board=True, score=0.89,
    )  # fmt: skip
    assert _candidate(item, set(), job).missed == ()
    assert _candidate(replace(item, score=0.8899), set(), job).missed == ("accuracy_drop_points",)


@pytest.mark.parametrize(
    "words",
    [
        {"precision": "int8-weights,int8", "calibration": "mse"},
        {"precision": "int8-int16", "calibration": "mse", "formats": "tflite"},
        {"precision": "int4-weights", "weight_scales": "per-tensor", "formats": "tflite"},
        {"precision": "float32,int8", "activation_range": "symmetric"},
        {"precision": "auto", "calibration": "mse", "activation_range": "symmetric"},
        {"precision": "joint", "weight_scales": "per-tensor"},
        {"calibration": "mse", "activation_range": "symmetric"},
    ],
)
def test_rules_that_any_file_follows_are_taken(words: dict[str, str]) -> None:
    options = resolve_options({"board": "x86-64", **words})
    board = load_board("x86-64")
    refuse_idle_rules(options, board, chosen_formats(options, board))


@pytest.mark.parametrize("board", sorted(shipped_boards()))
def test_what_is_chosen_from_is_what_may_be_asked_for(board: str) -> None:
    found = load_board(board)
    for format in found.formats:
        allowed = set()
        for precision in FILE_PRECISIONS:
            with suppress(UsageError):
                options = JobOptions(board=board, precision=precision)
                allowed |= {*chosen_precisions(options, found, [format])}
        assert set(possible(found, format)) == allowed


def test_a_microcontroller_chooses_among_integers_also_where_nothing_is_pruned(job: Job) -> None:
    ended = job("--board esp32s3 --stages quantize --max-drop 0 --precision auto")
    assert ended.code in (0, 1), ended.complained
    assert {a["precision"] for a in ended.report["artifacts"]} == {"float32", "int8"}
    (found,) = ended.report["precision_choice"]
    assert (found["precision"], found["shipped"]) == ("int8", True)


@pytest.fixture(scope="module")
def chosen(tmp_path_factory: pytest.TempPathFactory, trained: Path) -> Ended:
    """ONNX alone, not pruned. Tests only read it."""
    out = tmp_path_factory.mktemp("choice") / "out"
    words = "--board x86-64 --formats onnx --stages quantize,bench --max-drop 50 --precision auto"
    return run_here(out, *NETWORK, *QUICK, "--weights", trained, *words.split())


def test_all_candidates_are_measured_and_one_is_shipped(chosen: Ended) -> None:
    assert chosen.complained == ""
    report = chosen.report
    found = report["precision_choice"]
    assert {c["precision"] for c in found} == set(possible(load_board("x86-64"), "onnx"))
    (shipped,) = [c for c in found if c["shipped"]]
    in_bundle = [a for a in report["artifacts"] if a["path"].startswith("bundle/")]
    assert [a["path"] for a in in_bundle] == [f"bundle/{shipped['path']}"]
    assert len(report["artifacts"]) == len(found)
    assert all(c["latency_p50_ms"] > 0 and 0 < c["validation_score"] <= 1 for c in found)
    allowed = [c for c in found if not c["missed"]]
    fastest = min(c["latency_p50_ms"] for c in allowed)
    if shipped["latency_counts"]:
        assert shipped["latency_p50_ms"] <= 1.05 * fastest


def test_the_report_shows_all_of_them(chosen: Ended) -> None:
    with Image.open(chosen.out / "precision.png") as picture:
        assert picture.width > 600
    text = (chosen.out / "report.md").read_text()
    assert "](precision.png)" in text
    for said in (chosen.said, text):
        for entry in chosen.report["precision_choice"]:
            assert f"{entry['path']}: " in said
        assert said.count("<- shipped") >= 1
    page = (ROOT / "docs" / "report.md").read_text(encoding="utf-8")
    pattern = r"^## precision_choice\[\]\n(.*?)^## "
    (section,) = re.findall(pattern, page, flags=re.MULTILINE | re.DOTALL)
    documented = re.findall(r"^\| (`.*?`) \|", section, flags=re.MULTILINE)
    known = set(re.findall(r"`(\w+)`", " ".join(documented)))
    assert known == set(chosen.report["precision_choice"][0])


def test_measuring_again_keeps_the_choice(chosen: Ended, tmp_path: Path) -> None:
    before = chosen.report["precision_choice"]
    words = "--board x86-64 --stages bench --latency-runs 5 --max-drop 50"
    shutil.copytree(chosen.out, tmp_path / "out")
    again = run_here(tmp_path / "out", *words.split())
    assert again.code == chosen.code, again.complained
    assert again.report["precision_choice"] == before
    assert (again.out / "precision.png").is_file()


def test_auto_stands_alone() -> None:
    with pytest.raises(UsageError, match="--precision auto,int8: auto tries every precision"):
        resolve_options({"board": "x86-64", "precision": "auto,int8"})
