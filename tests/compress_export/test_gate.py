"""The gate: runs that pass, that miss each budget, that regress, and reports of every kind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from gate_reports import (
    BUDGETS,
    HOST,
    MIB,
    ONNX,
    TFLITE,
    artifact,
    bench_report,
    device,
    job_report,
    write,
)

from compress_export.cli import main

Output = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def no_step_summary(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test may itself run in CI."""
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)


def gate(report: Path, *arguments: str | Path) -> int:
    return main(["gate", str(report), *map(str, arguments)])


def test_a_run_that_passes(tmp_path: Path, capsys: Output) -> None:
    write(tmp_path, job_report(artifact(ONNX), artifact(TFLITE)))
    assert gate(tmp_path, "--require-measured") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "gate: 12 passed"
    assert lines[0] == (
        "pass       x86-64 slim.int8.onnx file_size_mib 1 MiB, limit 2 MiB, headroom 1 MiB"
    )
    assert len({line.split(",")[0].rsplit(" ", 2)[0] for line in lines[:-1]}) == 12


# What makes a file miss each budget by the same factor, all other figures as they were.
TOO_MUCH: dict[str, dict[str, Any]] = {
    "file_size_mib": {"size_bytes": 4 * MIB},
    "weights_mib": {"weight_bytes": {"int8": MIB, "float32": MIB}},
    "activation_memory_mib": {"activation_bytes": MIB},
    "peak_rss_mib": {"peak_rss_bytes": 200 * MIB},
    "latency_p90_ms": {"latency_ms": {"p50": 2.0, "p90": 10.0, "p99": 20.0}},
    "accuracy_drop_points": {"top1": 0.88},
}


@pytest.mark.parametrize("budget", BUDGETS)
def test_a_run_that_misses_one_budget(tmp_path: Path, capsys: Output, budget: str) -> None:
    write(tmp_path, job_report(artifact(**TOO_MUCH[budget])))
    assert gate(tmp_path) == 1
    (line,) = (row for row in capsys.readouterr().out.splitlines() if row.startswith("fail"))
    limit, unit = BUDGETS[budget]
    assert f"{ONNX} {budget} {2 * limit:g} {unit}, limit {limit:g} {unit}, over by" in line


def test_an_accelerators_latency_is_not_that_of_another_boards_cores(
    tmp_path: Path, capsys: Output
) -> None:
    host = {**HOST, "arch": "aarch64", "isa": ["neon", "fp16", "dotprod"]}
    files = [artifact(ONNX, profile="arm-dotprod"), artifact(TFLITE), artifact("slim.float32.onnx")]
    write(tmp_path, job_report(*files, board="rpi5", environment={"host": host}))
    limits = tmp_path / "limits.yaml"
    limits.write_text("limits: {latency: 5ms}")
    assert gate(tmp_path, "--board", "jetson", "--limits", limits) == 0
    lines = [row for row in capsys.readouterr().out.splitlines() if "latency_p90_ms" in row]
    assert [line.split()[0] for line in lines] == ["unverified", "pass", "unverified"]
    assert lines[0].endswith("(the bench times CPU cores, not tensorrt; measure it there)")


def test_an_equal_figure_passes_and_nan_does_not(tmp_path: Path) -> None:
    write(tmp_path, job_report(artifact(size_bytes=2 * MIB)))
    assert gate(tmp_path) == 0
    write(tmp_path, job_report(artifact(latency_ms={"p50": 1.0, "p90": float("nan"), "p99": 1.0})))
    assert gate(tmp_path) == 1


@pytest.mark.parametrize(
    ("asked", "changes"),
    [
        ("size:2%", {"size_bytes": round(1.03 * MIB)}),
        ("size:4KiB", {"size_bytes": MIB + 5000}),
        ("weights:2%", {"weight_bytes": {"int8": round(0.52 * MIB)}}),
        ("activations:2%", {"activation_bytes": round(0.26 * MIB)}),
        ("memory:2%", {"peak_rss_bytes": 52 * MIB}),
        ("latency:10%", {"latency_ms": {"p50": 2.0, "p90": 2.8, "p99": 3.0}}),
        ("latency:0.2ms", {"latency_ms": {"p50": 2.0, "p90": 2.8, "p99": 3.0}}),
        ("top1:0.2", {"top1": 0.892}),
    ],
)
def test_a_run_that_regresses(
    tmp_path: Path, capsys: Output, asked: str, changes: dict[str, Any]
) -> None:
    old = write(tmp_path / "old", job_report())
    new = write(tmp_path / "new", job_report(artifact(**changes)))
    assert gate(new) == 0
    capsys.readouterr()
    assert gate(new, "--baseline", old, "--fail-on", asked) == 1
    (line,) = (row for row in capsys.readouterr().out.splitlines() if row.startswith("fail"))
    assert f"{ONNX} {asked.partition(':')[0]}_regression" in line
    assert "->" in line
    assert gate(old, "--baseline", new, "--fail-on", asked) == 0, "better is no regression"


def test_latencies_of_different_machines_are_not_compared(tmp_path: Path, capsys: Output) -> None:
    other: dict[str, Any] = {"environment": {"host": {**HOST, "model": "Other"}}}
    old = write(tmp_path / "old", job_report(**other))
    new = write(tmp_path / "new", job_report(artifact(threads=4)))
    asked = ("--baseline", old, "--fail-on", "latency:1%")
    assert gate(new, *asked) == 0
    assert "measured on different machines" in capsys.readouterr().out
    assert gate(new, *asked, "--require-measured") == 4
    old = write(tmp_path / "old", job_report())
    assert gate(new, *asked, "--require-measured") == 4
    assert "1 thread(s) then, 4 now" in capsys.readouterr().out


def test_a_file_that_the_old_run_had_not(tmp_path: Path) -> None:
    old = write(tmp_path / "old", job_report(artifact(ONNX)))
    new = write(tmp_path / "new", job_report(artifact(TFLITE)))
    asked = ("--baseline", old, "--fail-on", "size:1%")
    assert gate(new, *asked) == 0
    assert gate(new, *asked, "--require-measured") == 4


def test_a_file_that_disappeared_is_unverified(tmp_path: Path, capsys: Output) -> None:
    old = write(tmp_path / "old", job_report(artifact(ONNX), artifact(TFLITE)))
    new = write(tmp_path / "new", job_report(artifact(ONNX)))
    asked = ("--baseline", old, "--fail-on", "size:1%")
    assert gate(new, *asked) == 0
    assert (
        "unverified x86-64 slim.int8.tflite size_regression not measured, limit 1 % "
        "(this report has no such file)"
    ) in capsys.readouterr().out
    assert gate(new, *asked, "--require-measured") == 4
    assert gate(old, "--baseline", old, "--fail-on", "size:1%", "--require-measured") == 0


def test_another_boards_budgets(tmp_path: Path, capsys: Output) -> None:
    """The same figures; the host speaks for boards of its own kind alone."""
    write(tmp_path, job_report(artifact(ONNX), artifact(TFLITE)))
    assert gate(tmp_path, "--board", "rpi5") == 0
    said = capsys.readouterr().out
    assert "unverified rpi5 slim.int8.onnx peak_rss_mib 50 MiB, limit 1024 MiB" in said
    assert "measured on a host unlike rpi5 (aarch64 neon fp16 dotprod)" in said
    assert gate(tmp_path, "--board", "rpi5", "--require-measured") == 4
    capsys.readouterr()
    assert gate(tmp_path, "--board", "stm32f746", "--board", "x86-64") == 1
    said = capsys.readouterr().out
    assert "fail       stm32f746 slim.int8.tflite file_size_mib 1 MiB, limit 0.75 MiB" in said
    assert "stm32f746 slim.int8.onnx" not in said, "that board runs no ONNX"
    assert "pass       x86-64 slim.int8.onnx file_size_mib" in said


def test_devices_decide_on_time_and_memory(tmp_path: Path, capsys: Output) -> None:
    """The worst device, each by its latest figures; a host unlike the board no longer counts."""
    slow = {"latency_ms": {"p50": 1.0, "p90": 4.0, "p99": 9.0}}
    entries = [
        device("pi@a:/opt", "2026-11-02T00:00:00+00:00"),
        device("pi@b:/opt", "2026-11-02T00:00:00+00:00", **slow),
        device("pi@b:/opt", "2026-11-01T00:00:00+00:00", **TOO_MUCH["latency_p90_ms"]),
    ]
    mine = artifact(host_matches_board=False)
    write(tmp_path, job_report(mine, board="rpi5", device_measurements=entries))
    assert gate(tmp_path, "--require-measured") == 0
    said = capsys.readouterr().out
    assert "latency_p90_ms 4 ms, limit 5 ms, headroom 1 ms (measured on pi@b:/opt)" in said
    entries[0]["measurements"][0]["sha256"] = "another file"
    entries[1]["measurements"][0]["sha256"] = "another file"
    write(tmp_path, job_report(mine, board="rpi5", device_measurements=entries[:2]))
    assert gate(tmp_path, "--require-measured") == 4, "figures of other bytes don't count"


def test_a_devices_figures_are_its_own_boards_alone(tmp_path: Path, capsys: Output) -> None:
    entries = [device("pi@a:/opt", "2026-11-02T00:00:00+00:00")]
    write(tmp_path, job_report(board="jetson", device_measurements=entries))
    assert gate(tmp_path, "--board", "rpi5") == 0
    assert "unverified rpi5 slim.int8.onnx peak_rss_mib" in capsys.readouterr().out


def test_figures_of_the_bench(tmp_path: Path, capsys: Output) -> None:
    path = write(tmp_path, bench_report(artifact(top1=0.885)), "figures.json")
    assert gate(path) == 0, "its baseline is known by the drop that the bench noted"
    assert "figures slim.int8.onnx accuracy_drop_points 0.5 points" in capsys.readouterr().out
    path = write(tmp_path, bench_report(artifact(size_bytes=3 * MIB)), "figures.json")
    assert gate(path) == 1


def test_a_missed_target_fails_by_the_reports_own_budgets(tmp_path: Path) -> None:
    report = job_report()
    target = {**report["checks"][0], "file": "", "budget": "target", "status": "fail", "value": 2.0}
    write(tmp_path, {**report, "checks": [target, *report["checks"]]})
    assert gate(tmp_path) == 1
    assert gate(tmp_path, "--board", "x86-64") == 0


def test_without_files_nothing_passes(tmp_path: Path) -> None:
    write(tmp_path, job_report() | {"artifacts": []})
    assert gate(tmp_path, "--require-measured") == 4


def test_limits_of_a_file_take_the_boards_place(tmp_path: Path, capsys: Output) -> None:
    write(tmp_path, job_report())
    limits = tmp_path / "gate.yaml"
    limits.write_text("limits: {size: 900KiB, drop: 0.6 points}\nregressions: {size: 2%}\n")
    assert gate(tmp_path, "--limits", limits) == 1
    said = capsys.readouterr().out
    assert "fail       x86-64 slim.int8.onnx file_size_mib 1 MiB, limit 0.8789 MiB" in said
    assert "accuracy_drop_points 0.5 points, limit 0.6 points" in said
    assert "latency_p90_ms 2.5 ms, limit 5 ms" in said
    limits.write_text("limits: {size: 1MiB}\nregressions: {size: 2%, latency: 1%}\n")
    old = write(tmp_path / "old", job_report(artifact(size_bytes=MIB // 2)))
    assert gate(tmp_path, "--limits", limits, "--baseline", old, "--fail-on", "size:100%") == 0
    assert gate(tmp_path, "--limits", limits, "--baseline", old) == 1


def test_a_fleet_is_judged_board_by_board(tmp_path: Path, capsys: Output) -> None:
    write(tmp_path / "x86-64", job_report())
    write(tmp_path / "rpi5", job_report(artifact(size_bytes=3 * MIB), board="rpi5"))
    fleet = {"fleet": [{"board": name, "folder": name} for name in ("x86-64", "rpi5")]}
    write(tmp_path, fleet, "fleet.json")
    assert gate(tmp_path) == 1
    said = capsys.readouterr().out
    assert "fail       rpi5 slim.int8.onnx file_size_mib" in said
    assert "pass       x86-64 slim.int8.onnx file_size_mib" in said
    assert gate(tmp_path, "--baseline", tmp_path, "--fail-on", "size:0%") == 1
    assert gate(tmp_path / "x86-64", "--baseline", tmp_path, "--fail-on", "size:0%") == 0


def fleet_of(folder: Path, *boards: str, without_budgets: str = "") -> Path:
    """A fleet of passing boards, one of which may have nothing to be judged by."""
    for board in boards:
        changes = {"checks": []} if board == without_budgets else {}
        write(folder / board, job_report(board=board, **changes))
    members = [{"board": board, "folder": board} for board in boards]
    write(folder, {"fleet": members}, "fleet.json")
    return folder


def test_a_board_without_budgets_hides_no_other_boards_failure(
    tmp_path: Path, capsys: Output
) -> None:
    fleet = fleet_of(tmp_path, "jetson", "x86-64", without_budgets="jetson")
    write(tmp_path / "x86-64", job_report(artifact(size_bytes=3 * MIB)))
    junit = tmp_path / "gate.xml"
    assert gate(fleet, "--junit", junit, "--annotations") == 1
    said = capsys.readouterr().out
    assert "fail       x86-64 slim.int8.onnx file_size_mib" in said
    assert "::error title=x86-64" in said
    assert 'failures="1"' in junit.read_text()


def test_regressions_alone_are_enough_to_judge(tmp_path: Path) -> None:
    old = write(tmp_path / "old", job_report())
    new = write(tmp_path / "new", job_report(artifact(size_bytes=2 * MIB), checks=[]))
    assert gate(new) == 2
    assert gate(new, "--baseline", old, "--fail-on", "size:2%") == 1
    assert gate(new, "--baseline", old, "--fail-on", "size:200%") == 0


def test_a_board_that_the_baseline_lacks_is_unverified(tmp_path: Path, capsys: Output) -> None:
    old = fleet_of(tmp_path / "old", "x86-64", "rpi5")
    new = fleet_of(tmp_path / "new", "jetson", "x86-64")
    write(new / "x86-64", job_report(artifact(size_bytes=round(1.5 * MIB))))
    asked = ("--baseline", old, "--fail-on")
    assert gate(new, *asked, "size:2%") == 1, "what the others have lost still counts"
    said = capsys.readouterr().out
    assert "fail       x86-64 slim.int8.onnx size_regression" in said
    (line,) = (row for row in said.splitlines() if "jetson slim.int8.onnx size_regression" in row)
    assert line.startswith("unverified")
    assert line.endswith("(the baseline has no board jetson)")
    (line,) = (row for row in said.splitlines() if "rpi5 slim.int8.onnx size_regression" in row)
    assert line.startswith("unverified")
    assert line.endswith("(only the baseline has a board rpi5)")
    assert gate(new, *asked, "size:90%") == 0
    assert gate(new, *asked, "size:90%", "--require-measured") == 4


def test_one_board_alone_is_held_against_its_fleet(tmp_path: Path, capsys: Output) -> None:
    fleet = fleet_of(tmp_path / "fleet", "x86-64", "rpi5")
    alone = write(tmp_path / "alone", job_report())
    asked = ("--baseline", fleet, "--fail-on", "size:2%", "--require-measured")
    assert gate(alone, *asked) == 0
    assert "rpi5" not in capsys.readouterr().out


def test_members_held_to_one_board_keep_their_own_names(tmp_path: Path, capsys: Output) -> None:
    """A pass of the last member must not take the place of the first one's failure."""
    fleet = fleet_of(tmp_path, "rpi5", "jetson")
    write(tmp_path / "rpi5", job_report(artifact(TFLITE), board="rpi5"))
    write(tmp_path / "jetson", job_report(artifact(TFLITE, size_bytes=1000), board="jetson"))
    history, junit = tmp_path / "history.json", tmp_path / "gate.xml"
    assert gate(fleet, "--board", "stm32f746", "--history", history, "--junit", junit) == 1
    assert "fail       rpi5 as stm32f746 slim.int8.tflite file_size_mib" in capsys.readouterr().out
    found = {entry["name"]: entry["extra"] for entry in json.loads(history.read_text())}
    size = "stm32f746 / slim.int8.tflite / file_size_mib"
    assert found[f"rpi5 as {size}"].startswith("fail")
    assert found[f"jetson as {size}"].startswith("pass")
    suites = {suite.get("name"): suite for suite in ET.parse(junit).getroot()}
    assert list(suites) == ["rpi5 as stm32f746", "jetson as stm32f746"]
    assert all(suite.get("time") == "42.000" for suite in suites.values())
    assert gate(fleet / "rpi5", "--board", "stm32f746") == 1
    assert "fail       stm32f746 slim.int8.tflite file_size_mib" in capsys.readouterr().out
