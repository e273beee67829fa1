"""What a device says is bounded, holds no control characters, and is not taken for more."""

from __future__ import annotations

import io
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from gate_reports import ONNX, artifact, bench_report
from hypothesis import given, settings
from hypothesis import strategies as st

from compress_export.deploy import device
from compress_export.deploy.answer import Expected
from compress_export.deploy.destination import Destination
from compress_export.deploy.errors import DeviceError
from compress_export.deploy.steps import BenchRequest, bench, unmeasured
from runtime_bench.manifest import BoardRef, Manifest, ModelFile, Preprocessing, TensorSpec

TENSOR = TensorSpec("x", (-1, 3, 8, 8), "NCHW", "float32", None, None)
FILE = ModelFile(
    ONNX, "slim", ONNX, (), "onnx", "int8", 1, f"sha of {ONNX}", TENSOR, TENSOR, None, None
)
BUNDLE = Manifest(
    Path("bundle"),
    BoardRef("jetson", "linux", "aarch64", (), 4),
    {"latency_p90_ms": 5.0},
    "tiny",
    ("a", "b"),
    (3, 8, 8),
    Preprocessing((0.5,), (0.5,), 1.0, "RGB"),
    (FILE,),
)
REQUEST = BenchRequest("python3", Expected(BUNDLE))


class Said:
    """An ssh that says this and ends."""

    def __init__(self, content: bytes) -> None:
        self.stdin, self.stdout = io.BytesIO(), io.BytesIO(content)

    def wait(self) -> int:
        return 255

    kill = wait


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Measure on a device that says something."""

    def measured(content: bytes) -> dict[str, Any]:
        monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: Said(content))
        return bench(device.Ssh(), Destination.parse("me@board:/m"), REQUEST)

    return measured


def figures(**changes: Any) -> bytes:
    report = bench_report()
    for item in report["measurements"]:
        item |= {"runtime": "onnxruntime 1.20", "note": ""}
    return b"compress-export: ended 0\n" + json.dumps({**report, **changes}).encode()


def test_a_device_does_not_speak_for_another(answer: Any) -> None:
    entry = answer(figures(device="other@host:/x", measured_at="1999"))
    assert entry["device"] == "me@board:/m"
    assert not entry["measured_at"].startswith("1999")
    assert unmeasured(entry) == []


def test_a_device_does_not_judge_itself(answer: Any) -> None:
    slow = {"p50": 1.0, "p90": 9.0, "p99": 9.0}
    for checks in ([], [{"status": "pass"}]):
        (item,) = bench_report(artifact(latency_ms=slow))["measurements"]
        entry = answer(figures(measurements=[item], checks=checks, verdict="pass"))
        assert [check["status"] for check in entry["checks"]] == [entry["verdict"]] == ["fail"]


MEASURED = bench_report()["measurements"][0]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"\n" * 5000, "no answer among"),
        (b"x" * 2**20, "connection ended"),
        (b"compress-export: ended zero\n", "failed with code zero"),
        (b"compress-export: ended 0\n" + b" " * 2**25, "more than 16 MiB"),
        (b"compress-export: ended 0\n" + b"[" * 100_000, "wrote no figures"),
        (figures(measurements=[{}]), "wrote no figures"),
        (figures(measurements=5), "wrote no figures"),
        (figures(measurements=[]), "wrote no figures"),
        (figures(measurements=[MEASURED, MEASURED]), "wrote no figures"),
        (figures(measurements=[{**MEASURED, "sha256": "another"}]), "wrote no figures"),
        (figures(measurements=[{**MEASURED, "latency_ms": {"p50": 1}}]), "wrote no figures"),
        (figures(measurements=[{**MEASURED, "latency_ms": {"p90": 1e400}}]), "wrote no figures"),
        (figures(measurements=[{**MEASURED, "peak_rss_bytes": "much"}]), "wrote no figures"),
        (figures(host={"cores": "four"}), "wrote no figures"),
        (figures(host=None), "wrote no figures"),
        (b"compress-export: error \x1b[2J\x07 x\n", r"\?\[2J\? x"),
    ],
)
def test_answers_that_are_none(answer: Any, content: bytes, why: str) -> None:
    with pytest.raises(DeviceError, match=why) as caught:
        answer(content)
    assert str(caught.value).isprintable()


@settings(max_examples=100)
@given(st.binary(max_size=60), st.booleans())
def test_any_bytes_are_an_answer_or_a_device_error(content: bytes, prefixed: bool) -> None:
    with pytest.MonkeyPatch.context() as patch:
        said = b"compress-export: " + content if prefixed else content
        patch.setattr(subprocess, "Popen", lambda *a, **k: Said(said))
        with pytest.raises(DeviceError):
            bench(device.Ssh(), Destination.parse("b:/m"), REQUEST)
