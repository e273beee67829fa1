"""Which boards share one compression, and what a fleet is told by options and files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from gate_reports import ONNX, artifact, job_report, write
from html_runs import plain_report

from boards import Board, load_board
from compress_export.cli import main
from compress_export.errors import UsageError
from compress_export.fleet.adopt import adopt
from compress_export.fleet.matrix import matrix_markdown, matrix_rows
from compress_export.fleet.need import Member, distinct_needs, need_of
from compress_export.job_file import read_fleet_file, resolve_jobs
from compress_export.options import JobOptions
from runtime_bench.host import BOARD_VARIABLE


def jobs(*boards: str, **options: Any) -> list[JobOptions]:
    return [JobOptions(board=board, **options) for board in boards]


def need(board: Board) -> dict[str, Any]:
    return need_of(board, board.formats, ["int8"])


def changed(board: Board, path: str, value: object) -> Board:
    """The board with one key of its descriptor changed."""
    content = board.model_dump(mode="json", exclude_none=True)
    *sections, key = path.split(".")
    inner = content
    for section in sections:
        inner = inner[section]
    inner[key] = value
    return Board.model_validate(content)


def test_boards_with_the_same_files_are_one_need() -> None:
    found = distinct_needs(jobs("jetson", "rpi5", "orin-nano", "x86-64"))
    assert [[member.board.id for member in need.members] for need in found] == [
        ["jetson", "orin-nano"],
        ["rpi5"],
        ["x86-64"],
    ]


def test_options_can_make_needs_equal_or_apart() -> None:
    pair = ("jetson", "rpi5")
    assert len(distinct_needs(jobs(*pair, formats="tflite"))) == 2, "steps or rules still differ"
    assert len(distinct_needs(jobs("jetson", "orin-nano", max_drop=2.0))) == 1
    auto = jobs("jetson", "orin-nano", precision="auto")
    assert len(distinct_needs(auto)) == 2, "process memory has a say in the choice"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("formats", ["onnx"]),
        ("channel_steps.int8", 4),
        ("quantization.calibration", "mse"),
        ("quantization.onnx.excluded_ops", ["Softmax", "Add"]),
        ("quantization.tflite.per_channel_linear", False),
        ("budgets.file_size_mib", 0.5),
        ("budgets.weights_mib", 0.5),
        ("budgets.activation_memory_mib", 0.5),
        ("budgets.accuracy_drop_points", 2.0),
        ("cpu.isa", ["neon"]),
        ("runtimes", [{"name": n, "min_version": "10.3"} for n in ("tensorrt", "litert")]),
    ],
)
def test_what_files_depend_on_parts_needs(path: str, value: object) -> None:
    jetson = load_board("jetson")
    other = changed(jetson, path, value)
    assert need_of(other, other.formats, ["int8"]) != need(jetson)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("id", "mine"),
        ("name", "Another"),
        ("cpu.cores", 4),
        ("cpu.clock_mhz", 1000.0),
        ("storage.usable_mib", 100.0),
        ("next_command", "true"),
        ("deploy", "/srv"),
        ("budgets.peak_rss_mib", 10.0),
    ],
)
def test_what_is_judged_alone_does_not(path: str, value: object) -> None:
    jetson = load_board("jetson")
    assert need(changed(jetson, path, value)) == need(jetson)


def test_a_latency_budget_parts_needs_where_it_steers(monkeypatch: pytest.MonkeyPatch) -> None:
    jetson = load_board("jetson")
    faster = changed(jetson, "budgets.latency_p90_ms", 5.0)
    where = "compress_export.latency_target.why_not_searchable"
    monkeypatch.setattr(where, lambda *_: "another machine")
    assert need(faster) == need(jetson)
    monkeypatch.setattr(where, lambda *_: None)
    assert need(faster) != need(jetson)


def test_a_board_that_is_this_machine_gets_files_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They are measured on their board, which the others' are not."""
    monkeypatch.setenv(BOARD_VARIABLE, "jetson")
    assert len(distinct_needs(jobs("jetson", "orin-nano"))) == 2
    monkeypatch.setenv(BOARD_VARIABLE, "rpi5")
    assert len(distinct_needs(jobs("jetson", "orin-nano"))) == 1


def test_what_one_board_measured_is_nothing_of_another(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    measured = artifact(measured_on="board", host_matches_board=False)
    report = {**plain_report(), **job_report(measured, board="jetson"), "inputs": {}}
    write(tmp_path, report)
    member = Member(JobOptions(board="orin-nano"), load_board("orin-nano"))
    mine = adopt(tmp_path, report, member, lambda line: None)
    assert {entry["measured_on"] for entry in mine["artifacts"]} == {"host"}
    assert mine["verdict"] == "unverified"
    assert main(["gate", str(tmp_path), "--require-measured"]) == 4
    said = capsys.readouterr().out
    assert f"unverified orin-nano {ONNX} peak_rss_mib" in said


def test_a_mistake_in_any_board_comes_before_all_work() -> None:
    with pytest.raises(UsageError, match="board jetson is named twice"):
        distinct_needs(jobs("jetson", "agx-orin"))
    with pytest.raises(UsageError, match="board coral runs tflite only"):
        distinct_needs(jobs("jetson", "coral", formats="onnx"))


def test_boards_of_the_command_line_and_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "fleet.yaml"
    path.write_text("boards:\n  - jetson\n  - boards/rpi5.yaml\n")
    listed = resolve_jobs({"board": None, "fleet": str(path), "seed": "7"})
    assert listed == resolve_jobs({"board": ["jetson", "boards/rpi5.yaml"], "seed": "7"})
    assert [(job.board, job.seed) for job in listed] == [("jetson", 7), ("boards/rpi5.yaml", 7)]
    config = tmp_path / "job.yaml"
    config.write_text("board: coral\nseed: 3\n")
    assert [job.board for job in resolve_jobs({"config": str(config)})] == ["coral"]
    both = resolve_jobs({"config": str(config), "board": ["rpi4", "rpi5"]})
    assert [(job.board, job.seed) for job in both] == [("rpi4", 3), ("rpi5", 3)]


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "boards: must be a list"),
        ("boards: []", "boards: must be a list"),
        ("boards: jetson", "boards: must be a list"),
        ("boards: [1]", "1 is neither a name nor a path"),
        ("board: [jetson]", "did you mean 'boards'"),
        ("- jetson", "must hold 'boards:' and a list, but holds a list"),
        ("boards: [a", "not valid YAML"),
    ],
)
def test_mistakes_in_a_fleet_file(tmp_path: Path, text: str, part: str) -> None:
    path = tmp_path / "fleet.yaml"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        read_fleet_file(path)
    assert str(caught.value).startswith(f"--fleet {path}: ")
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("words", "part"),
    [
        ("--board jetson --fleet fleet.yaml", "exclude each other"),
        ("--fleet missing.yaml", "--fleet missing.yaml: cannot be read"),
        ("--board jetson --board rpi5 --stages bench", "--stages bench: measures one finished"),
        ("--board jetson --board jetsn", "did you mean jetson"),
    ],
)
def test_a_users_mistake_is_one_line_and_code_2(
    capsys: pytest.CaptureFixture[str], words: str, part: str
) -> None:
    assert main(words.split()) == 2
    complained = capsys.readouterr().err
    assert complained.count("\n") == 1
    assert part in complained


def test_the_matrix_has_every_board_file_and_budget() -> None:
    def check(board: str, budget: str, status: str, value: float | None = 1.0) -> dict[str, Any]:
        file = "slim.int8.onnx"
        return {
            "board": board, "file": file, "budget": budget, "value": value, "limit": 2.0,
            "unit": "MiB", "status": status, "note": "",
        }  # fmt: skip

    report = {
        "fleet": [
            {"board": "a", "need": "a", "verdict": "fail"},
            {"board": "b", "need": "a", "verdict": "unverified"},
        ],
        "checks": [
            check("a", "accuracy_drop_points", "fail", 3.0),
            check("a", "file_size_mib", "pass"),
            check("b", "peak_rss_mib", "unverified", None),
        ],
        "verdict": "fail",
    }
    assert [(board, file) for board, file, _ in matrix_rows(report)] == [
        ("a", "slim.int8.onnx"),
        ("b", "slim.int8.onnx"),
    ]
    text = matrix_markdown(report)
    assert "| board | file | size MiB | RSS MiB | drop points |" in text
    assert "| a | slim.int8.onnx | 1 / 2 | - | ✗ 3 / 2 |" in text
    assert "| b | slim.int8.onnx | - | ? - / 2 | - |" in text
    assert "- unverified: b, with the files of a" in text
