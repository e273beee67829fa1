"""What decided a result stands in its report, and the job can be run again from there."""

from __future__ import annotations

import copy
import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_jobs import NETWORK, QUICK, Ended, run_here

from compress_export.cli import main
from compress_export.data.image_set import ImageSet, LazyPixels, MemoryPixels
from compress_export.errors import UsageError
from compress_export.provenance import differences, note_provenance
from compress_export.reproducing import TIMED_FILES, figure_differences, file_differences


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, trained: Path) -> Ended:
    """A finished job without model files, which take long to export."""
    out = tmp_path_factory.mktemp("made") / "out"
    words = shlex.split("--board jetson --stages prune --target-macs 0.4 --seed 3")
    ended = run_here(out, *NETWORK, *QUICK, *words, "--weights", trained)
    assert ended.code == 0, ended.complained
    return ended


def test_the_report_says_what_decided(made: Ended, trained: Path) -> None:
    import hashlib

    import torch

    report = made.report
    assert report["inputs"]["weights_sha256"] == hashlib.sha256(trained.read_bytes()).hexdigest()
    assert report["inputs"]["teacher_sha256"] is None
    assert list(report["inputs"]["code_sha256"]) == ["tiny_networks"]
    assert report["made_by"] is None
    environment = report["environment"]
    assert environment["torch"]["threads"] == 1
    assert environment["torch"]["cpu_capability"] == torch.backends.cpu.get_cpu_capability()
    assert environment["libraries"]["pillow"]
    assert len(environment["source_sha256"]) == 64
    for name, stage in report["stages"].items():
        weights = made.out / "torch" / name / "model.safetensors"
        assert stage["sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()


def test_it_comes_out_again(made: Ended, capsys: pytest.CaptureFixture[str]) -> None:
    """And what is otherwise is named: here what the report says, since the job itself repeats."""
    assert main(["reproduce", str(made.out)]) == 0
    assert "are equal, times aside" in capsys.readouterr().out
    path = made.out / "report.json"
    kept = path.read_text()
    report = json.loads(kept)
    report["stages"]["slim"]["macs"] += 1
    report["environment"]["libraries"]["torch"] = "1.0"
    path.write_text(json.dumps(report))
    other = made.out.with_name("other")
    try:
        assert main(["reproduce", str(path), "--out", str(other)]) == 1
    finally:
        path.write_text(kept)
    said = capsys.readouterr().out
    macs = report["stages"]["slim"]["macs"]
    assert f"differs: stages.slim.macs was {macs} and is {macs - 1}" in said
    assert said.count("differs:") == 1
    assert "here: libraries.torch was 1.0 and is" in said


def test_other_inputs_are_refused(
    made: Ended, trained: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    report = made.report
    other = tmp_path / "old" / "report.json"
    other.parent.mkdir()
    report["inputs"]["data_sha256"] = "of other images"
    other.write_text(json.dumps(report))
    assert main(["reproduce", str(other)]) == 2
    assert "made from other inputs, data_sha256 was of other images" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["old"]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"options": {}, "inputs": {}}'])
def test_no_report_is_a_mistake(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "report.json").write_text(text)
    assert main(["reproduce", str(tmp_path)]) == 2
    assert "no report.json of a job" in capsys.readouterr().err


REPORT: dict[str, Any] = {
    "seed": 1,
    "artifacts": [
        {"name": "a.onnx", "sha256": "1", "top1": 0.5, "latency_ms": {"p50": 1.0}},
        {"name": "b.onnx", "sha256": "2", "top1": 0.5, "latency_ms": None},
    ],
    "checks": [
        {"budget": "latency_p90_ms", "value": 1.0, "status": "pass"},
        {"budget": "file_size_mib", "value": 2.0, "status": "pass"},
    ],
    "options": {"stages": ["prune"], "seed": 0},
    "warnings": ["a.onnx is slower than b.onnx: p50 2 ms", "few test images"],
    "timings_seconds": {"search": 3.0},
    "verdict": "pass",
}


def slower(report: dict[str, Any]) -> None:
    report["artifacts"][0]["latency_ms"] = {"p50": 9.0}
    report["checks"][0] |= {"value": 9.0, "status": "fail"}
    report |= {"verdict": "fail", "timings_seconds": {}, "warnings": ["few test images"]}


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (slower, None),
        (lambda r: r["artifacts"][1].update(sha256="3"), "artifacts.b.onnx.sha256 was 2 and is 3"),
        (lambda r: r["artifacts"].pop(0), 'artifacts.a.onnx was {"name": "a.onnx", "sha256": "1'),
        (lambda r: r["checks"][1].update(status="fail"), "checks.0.status was pass and is fail"),
        (lambda r: r.update(warnings=[]), "warnings.0 was few test images and is null"),
    ],
)
def test_time_and_memory_do_not_count(
    change: Callable[[dict[str, Any]], None], line: str | None
) -> None:
    after = copy.deepcopy(REPORT)
    change(after)
    found = figure_differences(REPORT, after)
    assert len(found) == (line is not None)
    assert line is None or found[0].startswith(line)


def test_of_a_folder_measured_again_the_options_count_that_made_it() -> None:
    made_by = {"options": REPORT["options"], "environment": {}}
    again = {**REPORT, "options": {"stages": ["bench"], "seed": 0}, "made_by": made_by}
    assert figure_differences(REPORT, again) == []
    other = {**again, "made_by": {**made_by, "options": {"stages": ["prune"], "seed": 1}}}
    assert figure_differences(REPORT, other) == ["options.seed was 0 and is 1"]


def test_files_are_compared_byte_by_byte(tmp_path: Path) -> None:
    for folder, text in (("before", "x"), ("after", "y")):
        for name in ("torch/same", "bundle/model.onnx", *TIMED_FILES):
            path = tmp_path / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("same" if name == "torch/same" else text)
    (tmp_path / "before" / "bundle" / "gone").touch()
    (tmp_path / "before" / "notes.txt").write_text("the user's own")
    (tmp_path / "after" / "stray").touch()
    found = file_differences(tmp_path / "before", tmp_path / "after")
    assert found == [
        "bundle/gone is missing",
        "bundle/model.onnx has other bytes",
        "stray is missing",
    ]


def test_a_resumed_run_wants_its_inputs_back(tmp_path: Path) -> None:
    """Another library is worth a line, other images are a mistake."""
    inputs, here = {"data_sha256": "a" * 64}, {"libraries": {"torch": "2.14"}}
    assert note_provenance(tmp_path, inputs, here) == []
    assert note_provenance(tmp_path, inputs, here) == []
    newer = {"libraries": {"torch": "2.15"}}
    (line,) = note_provenance(tmp_path, inputs, newer)
    assert line.endswith("libraries.torch was 2.14 and is 2.15")
    with pytest.raises(UsageError, match="other inputs, data_sha256 was aaa"):
        note_provenance(tmp_path, {"data_sha256": "b" * 64}, here)


def test_differences_name_their_place() -> None:
    before, after = {"a": {"b": 1, "c": [1]}, "d": None}, {"a": {"b": 2, "c": [1]}, "e": None}
    assert differences(before, after) == ["a.b was 1 and is 2"]


def fingerprint(images: ImageSet) -> str:
    import hashlib

    digest = hashlib.sha256()
    images.add_to(digest)
    return digest.hexdigest()


def test_a_fingerprint_changes_with_any_pixel_and_label() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (600, 3, 4, 4), dtype=np.uint8)
    labels = np.arange(600) % 3
    whole = fingerprint(ImageSet(MemoryPixels(pixels), labels))
    assert fingerprint(ImageSet(MemoryPixels(pixels.copy()), labels.copy())) == whole
    assert fingerprint(ImageSet(LazyPixels(list(pixels.transpose(0, 2, 3, 1)), 4), labels)) == whole
    pixels[599, 2, 3, 3] ^= 1
    assert fingerprint(ImageSet(MemoryPixels(pixels), labels)) != whole
    pixels[599, 2, 3, 3] ^= 1
    labels[0] = 2
    assert fingerprint(ImageSet(MemoryPixels(pixels), labels)) != whole
