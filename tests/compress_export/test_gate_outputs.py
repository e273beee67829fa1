"""What a gate writes for CI: JUnit XML, annotations, step summary, benchmark history."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from gate_reports import ONNX, TFLITE, artifact, job_report, write
from junitparser import Failure, JUnitXml, Skipped
from xmlschema import XMLSchema

from compress_export.errors import UsageError
from compress_export.exit_codes import ExitCode
from compress_export.gate.history import add_to_history
from compress_export.gate.hosted_ci import command, summary, workflow_commands
from compress_export.gate.judged import Case
from compress_export.gate.junit import write_junit
from compress_export.gate.run import Asked, run_gate
from runtime_bench import Check

GOOD = Case("jetson", Check(ONNX, "file_size_mib", 1.0, 2.0, "MiB", "pass"))
BAD = Case(
    "jetson", Check(ONNX, "accuracy_drop_points", 3.0, 1.0, "points", "fail", "a, b: 5 % <|>"), 2.5
)
OPEN = Case("rpi5", Check(TFLITE, "latency_p90_ms", None, 5.0, "ms", "unverified", "no device"))
CASES = (GOOD, BAD, OPEN)
SCHEMA = Path(__file__).with_name("junit-10.xsd")  # the Jenkins xUnit plugin's, MIT licence
NOW = datetime(2026, 11, 22, 12, 30, 5, tzinfo=UTC)


def structural_mistakes(path: Path) -> list[str]:
    """What Jenkins' schema says, and what Ant's junitreport and readers ask for beyond it."""
    mistakes = [str(error.reason) for error in XMLSchema(SCHEMA).iter_errors(str(path))]
    root = ET.parse(path).getroot()
    if root.tag != "testsuites":
        mistakes.append("the root is not testsuites")
    for number, suite in enumerate(root):
        order = [element.tag for element in suite]
        cases = suite.findall("testcase")
        if order != ["properties", *["testcase"] * len(cases), "system-out", "system-err"]:
            mistakes.append(f"children in another order: {order}")
        counts = {
            "tests": len(cases),
            "failures": len(suite.findall("testcase/failure")),
            "errors": len(suite.findall("testcase/error")),
            "skipped": len(suite.findall("testcase/skipped")),
            "id": number,
        }
        mistakes += [name for name, count in counts.items() if suite.get(name) != str(count)]
        datetime.strptime(suite.attrib["timestamp"], "%Y-%m-%dT%H:%M:%S")
        if not all(suite.get(name) for name in ("name", "package", "hostname")):
            mistakes.append("a suite without name, package or host")
        if float(suite.attrib["time"]) < sum(float(case.attrib["time"]) for case in cases) - 1e-9:
            mistakes.append("a suite shorter than its cases")
        for case in cases:
            if not all(case.get(name) for name in ("name", "classname", "time")) or len(case) > 1:
                mistakes.append(f"case {case.attrib}")
            mistakes += [
                f"{case.attrib}: {name}"
                for element in case.findall("failure")
                for name in ("message", "type")
                if not element.get(name)
            ]
        names = [(case.get("classname"), case.get("name")) for case in cases]
        if len(set(names)) != len(names):
            mistakes.append("two cases of one name")
    return mistakes


def test_junit(tmp_path: Path) -> None:
    path = tmp_path / "gate.xml"
    write_junit(path, CASES, seconds={"jetson": 42.0}, require_measured=False, now=NOW)
    assert structural_mistakes(path) == []
    first, second = JUnitXml.fromfile(str(path))
    assert (first.name, first.tests, first.failures, first.skipped) == ("jetson", 2, 1, 0)
    assert (first.time, first.timestamp) == (42.0, "2026-11-22T12:30:05")
    good, bad = first
    assert (good.classname, good.name, good.result) == (f"jetson.{ONNX}", "file_size_mib", [])
    (failure,) = bad.result
    assert isinstance(failure, Failure)
    assert failure.message == (
        f"{ONNX} accuracy_drop_points 3 points, limit 1 points, over by 2 points (a, b: 5 % <|>)"
    )
    (skipped,) = next(iter(second)).result
    assert isinstance(skipped, Skipped)
    assert "not measured, limit 5 ms (no device)" in skipped.message


def test_the_schema_refuses_what_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "gate.xml"
    write_junit(path, CASES, seconds={}, require_measured=False, now=NOW)
    path.write_text(path.read_text().replace("failure message", "failed message"))
    path.write_text(path.read_text().replace("</failure>", "</failed>"))
    assert any("failed" in mistake for mistake in structural_mistakes(path))


def test_junit_where_all_had_to_be_measured(tmp_path: Path) -> None:
    path = tmp_path / "gate.xml"
    write_junit(path, CASES, seconds={}, require_measured=True, now=NOW)
    assert structural_mistakes(path) == []
    assert JUnitXml.fromfile(str(path)).failures == 2


def test_junit_holds_any_text(tmp_path: Path) -> None:
    note = "bell \x07, <tag> & \"quote\" ']]>', lone \ud800, emoji \U0001f600\nnext line"
    strange = Case("böard", dataclasses.replace(BAD.check, note=note))
    path = tmp_path / "gate.xml"
    write_junit(path, [strange], seconds={}, require_measured=False, now=NOW)
    assert structural_mistakes(path) == []
    text = ET.parse(path).findtext(".//failure") or ""
    assert "bell \ufffd, <tag> & \"quote\" ']]>', lone \ufffd, emoji \U0001f600\nnext line" in text


def test_annotations() -> None:
    assert workflow_commands(CASES, require_measured=False) == [
        f"::error title=jetson {ONNX} accuracy_drop_points fail::{ONNX} accuracy_drop_points "
        "3 points, limit 1 points, over by 2 points (a, b: 5 %25 <|>)",
        f"::warning title=rpi5 {TFLITE} latency_p90_ms unverified::{TFLITE} latency_p90_ms not "
        "measured, limit 5 ms (no device)",
        "::notice title=compress-export gate::1 passed, 1 failed, 1 unverified",
    ]
    assert workflow_commands([OPEN], require_measured=True)[0].startswith("::error ")


def test_annotations_are_escaped_as_the_runner_unescapes() -> None:
    line = command("error", "100 %\r\n::error::forged", title="a: b, c %")
    assert line == "::error title=a%3A b%2C c %25::100 %25%0D%0A::error::forged"
    assert "\n" not in line


def test_summary() -> None:
    lines = summary(CASES).splitlines()
    assert lines[0] == "### compress-export gate: 1 passed, 1 failed, 1 unverified"
    table = [line for line in lines if line.startswith("|")]
    assert [line.count("|") - line.count("\\|") for line in table] == [9] * len(table)
    assert table[2].startswith("| ❌ fail | jetson |"), "what failed comes first"
    assert "a, b: 5 % &lt;\\|>" in table[2]
    assert table[3].startswith("| ⚠️ unverified | rpi5 |")


def test_history(tmp_path: Path) -> None:
    """Entries in the form of customSmallerIsBetter; one of the same name is replaced."""
    path = tmp_path / "history.json"
    change = Case("jetson", Check(ONNX, "size_regression", 1.0, 2.0, "%", "pass"))
    add_to_history(path, [*CASES, change])
    better = Case("jetson", dataclasses.replace(GOOD.check, value=0.5))
    other = Case("rpi5", GOOD.check)
    add_to_history(path, [better, other])
    found = json.loads(path.read_text())
    assert [(entry["name"], entry["value"], entry["unit"]) for entry in found] == [
        (f"jetson / {ONNX} / file_size_mib", 0.5, "MiB"),
        (f"jetson / {ONNX} / accuracy_drop_points", 3.0, "points"),
        (f"rpi5 / {ONNX} / file_size_mib", 1.0, "MiB"),
    ]
    assert found[1]["extra"] == "fail, limit 1 points\na, b: 5 % <|>"
    assert list(tmp_path.iterdir()) == [path]
    path.write_text("{}")
    with pytest.raises(UsageError, match="holds no list of entries"):
        add_to_history(path, CASES)


def test_one_run_writes_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from rich.console import Console

    step = tmp_path / "summary.md"
    step.write_text("of an earlier step\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(step))
    write(tmp_path, job_report(artifact(ONNX), artifact(TFLITE, top1=0.5)))
    asked = Asked(tmp_path, junit=tmp_path / "g.xml", annotations=True, history=tmp_path / "h.json")
    assert run_gate(asked, Console(width=40)) == ExitCode.BUDGET_MISSED
    said = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("fail ") for line in said) == 1
    assert [line.partition(" ")[0] for line in said if line.startswith("::")] == [
        "::error",
        "::notice",
    ]
    (suite,) = JUnitXml.fromfile(str(tmp_path / "g.xml"))
    assert (suite.tests, suite.failures, suite.time) == (12, 1, 42.0)
    assert structural_mistakes(tmp_path / "g.xml") == []
    assert len(json.loads((tmp_path / "h.json").read_text())) == 12
    text = step.read_text()
    assert text.startswith("of an earlier step\n### compress-export gate: 11 passed, 1 failed")
