"""Mistakes in what a gate is given: code 2 and one line that says what is allowed."""

from __future__ import annotations

from pathlib import Path

import pytest
from gate_reports import job_report, write

from compress_export.cli import main
from compress_export.errors import UsageError
from compress_export.gate.limits import Allowed, parse_fail_on, read_limits

Output = pytest.CaptureFixture[str]


def test_a_limits_file(tmp_path: Path) -> None:
    path = tmp_path / "gate.yaml"
    path.write_text(
        "limits:\n  size: 1MiB\n  weights: 512 KiB\n  activations: 1MB\n  memory: 300MiB\n"
        "  latency: 250us\n  drop: 1.0 points\n"
        "regressions:\n  size: 2%\n  latency: 1ms\n  top1: 0.2\n"
    )
    found = read_limits(path)
    assert found.budgets == {
        "file_size_mib": 1.0,
        "weights_mib": 0.5,
        "activation_memory_mib": 1e6 / 2**20,
        "peak_rss_mib": 300.0,
        "latency_p90_ms": 0.25,
        "accuracy_drop_points": 1.0,
    }
    assert found.regressions == {
        "size": Allowed(2.0, "%"),
        "latency": Allowed(1.0, "ms"),
        "top1": Allowed(0.2, "points"),
    }
    assert parse_fail_on(["size:2%,latency:1ms", "top1:0.2"]) == found.regressions


def test_this_repositorys_own_file() -> None:
    found = read_limits(Path(__file__).parents[2] / ".github" / "gate.yaml")
    assert found.budgets["file_size_mib"] == 0.125
    assert set(found.regressions) == {"size", "top1"}


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("limits: {size: 5}", ["limits.size: '5' is not a size", "KiB or MiB"]),
        ("limits: {latency: 5}", ["limits.latency: '5' is not a latency", "5ms"]),
        ("limits: {sise: 1MiB}", ["unknown key 'sise'", "did you mean 'size'"]),
        ("limit: {size: 1MiB}", ["unknown key 'limit'", "did you mean 'limits'"]),
        ("limits: {top1: 1 points}", ["unknown key 'top1'"]),
        ("limits: {drop: 1%}", ["limits.drop: '1%' is not a number of points"]),
        ("limits: {size: true}", ["limits.size: True is neither"]),
        ("limits: {size: [1MiB]}", ["limits.size: ['1MiB'] is neither"]),
        ("regressions: {size: 2}", ["regressions.size: '2' is not a size", "as in 2%"]),
        ("regressions: {top1: 2%}", ["regressions.top1: '2%' is not a number of points"]),
        ("limits: [size]", ["limits: holds a list"]),
        ("limits: {size: 1MiB, size: 2MiB}", ["not valid YAML", "written twice"]),
        ("- size", ["holds a list"]),
        ("", ["holds nothing"]),
        ("limits:\n", ["holds no limit", "size, weights"]),
        ("limits: {size: 5, latency: 3}", ["limits.size", "limits.latency"]),
    ],
)
def test_mistakes_in_a_limits_file(tmp_path: Path, text: str, parts: list[str]) -> None:
    path = tmp_path / "gate.yaml"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        read_limits(path)
    message = str(caught.value)
    assert message.startswith(f"--limits {path}: ")
    assert "\n" not in message
    assert all(part in message for part in parts)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("size", "'size' is not NAME:AMOUNT"),
        ("size:2", "size: '2' is not a size"),
        ("speed:2%", "unknown key 'speed'"),
        ("size:2% size:3%", "'size' is there twice"),
        ("top1:2%", "not a number of points"),
        (" ", "names nothing"),
        ("size:-2%", "is not a size"),
    ],
)
def test_mistakes_in_fail_on(text: str, part: str) -> None:
    with pytest.raises(UsageError, match=r"^--fail-on: ") as caught:
        parse_fail_on([text])
    assert part in str(caught.value)
    assert "size:2% latency:10% top1:0.2" in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["missing.json"], "missing.json: cannot be read (No such file"),
        (["."], "holds neither report.json nor fleet.json"),
        (["broken.json"], "broken.json: not JSON"),
        (["list.json"], "list.json: holds a list"),
        (["strange.json"], "it has no artifacts and no measurements"),
        (["old.json"], "cannot be read as a report (KeyError: 'checks')"),
        (["good.json", "--board", "jetsn"], "did you mean jetson"),
        (["good.json", "--fail-on", "size:2%"], "--baseline"),
        (["good.json", "--baseline", "good.json"], "say how much worse"),
        (["good.json", "--junit", "no/such.xml"], "--junit no/such.xml: its folder"),
        (["good.json", "--history", "strange.json"], "holds no list of entries"),
        (["good.json", "--history", "broken.json"], "not JSON"),
        (["good.json", "--why"], "the files of good.json are not there"),
        (["no-budgets.json"], "nothing to judge, board x86-64 has no budgets; give --limits"),
        ([], "Missing argument 'REPORT'"),
    ],
)
def test_a_mistake_is_one_line_and_code_2(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Output,
    arguments: list[str],
    part: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "list.json").write_text("[1]")
    write(tmp_path, {"schema_version": 1}, "strange.json")
    write(tmp_path, {"artifacts": []}, "old.json")
    write(tmp_path, job_report(), "good.json")
    write(tmp_path, {**job_report(), "checks": []}, "no-budgets.json")
    assert main(["gate", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("compress-export: ")
    assert captured.err.count("\n") == 1
    assert part in captured.err
