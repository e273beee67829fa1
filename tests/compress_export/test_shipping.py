"""INT8 that is slower than float and no smaller is not shipped."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from boards import load_board
from compress_export.shipping import ship_what_gains
from compress_export.table import report_markdown
from exporters.artifacts import Exported, TensorSpec, sha256_of
from exporters.bundle import read_manifest_files, write_bundle, write_manifest
from exporters.profiles.profile import CheckedProfile
from runtime_bench import Measurement, describe_folders, read_manifest, without_gain

SIZES = {"slim.int8.onnx": 300, "slim.float32.onnx": 200, "slim.int8.tflite": 90}
FAST, SLOW = ({"p50": p50, "p90": p50, "p99": p50} for p50 in (1.0, 2.0))


def exported(folder: Path, name: str, profile: CheckedProfile | None) -> Exported:
    stage, precision, format = name.split(".")
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(name.encode().ljust(SIZES.get(name, 250), b"."))
    tensor = TensorSpec("input", (1, 3, 8, 8), "float32", layout="NCHW")
    return Exported(
        name=name,
        stage=stage,
        path=name,
        side_files=(),
        format=format,
        precision=precision,
        size_bytes=SIZES.get(name, 250),
        sha256=sha256_of(folder / name),
        input=tensor,
        output=TensorSpec("logits", (1, 4), "float32"),
        weight_bytes={},
        activation_bytes=0,
        float_layers=(),
        fused_integer_convs=None,
        convs=1,
        agreement_validation=1.0,
        profile=profile,
    )


@pytest.fixture
def job(tmp_path: Path) -> Any:
    """What `ship_what_gains` reads and changes of a job, with the files of both formats."""
    board = load_board("x86-64")
    profile = CheckedProfile("x86-vnni", benchable=True)
    about: dict[str, Any] = {
        "board": board,
        "model": "net",
        "classes": ["a", "b", "c", "d"],
        "input_shape": (3, 8, 8),
        "preprocessing": {"mean": [0.5], "std": [0.5], "scale": 1.0, "channel_order": "RGB"},
    }
    bundle, reference = tmp_path / "bundle", tmp_path / "reference"
    names = ("slim.int8.onnx", "slim.int8.tflite")
    write_bundle(bundle, [exported(bundle, name, profile) for name in names], **about)
    names = ("baseline.float32.onnx", "slim.float32.onnx", "slim.float32.tflite")
    write_manifest(reference, [exported(reference, name, None) for name in names], **about)
    return SimpleNamespace(
        folder=SimpleNamespace(staged=tmp_path), board=board, reference=[], warnings=[]
    )


def measured(job: Any, slow: str, **changes: Any) -> tuple[Measurement, ...]:
    """Both folders as measured on the board; files whose name begins with `slow` are slow."""
    found = describe_folders([job.folder.staged / "bundle", job.folder.staged / "reference"])
    given = {"measured_on": "board", "runtime": "some runtime", "note": "", **changes}
    return tuple(
        replace(item, latency_ms=SLOW if item.name.startswith(slow) else FAST, **given)
        for item in found
    )


def names_in(folder: Path) -> set[str]:
    listed = {file.path for file in read_manifest_files(folder)}
    assert listed == {path.name for path in folder.iterdir() if path.name in listed}
    assert {path.name for path in folder.glob("*.onnx")} == {n for n in listed if "onnx" in n}
    return listed


def test_the_float_file_is_shipped_instead(job):
    files = ship_what_gains(job, measured(job, "slim.int8"))
    bundle, reference = job.folder.staged / "bundle", job.folder.staged / "reference"
    assert names_in(bundle) == {"slim.float32.onnx", "slim.int8.tflite"}  # TFLite is smaller
    assert names_in(reference) == {
        "baseline.float32.onnx",
        "slim.float32.tflite",
        "slim.int8.onnx",
    }
    assert job.warnings == [
        "slim.int8.onnx is slower than slim.float32.onnx and no smaller: the bundle holds "
        "slim.float32.onnx instead"
    ]
    homes = {Path(item.folder).name: set() for item in files}
    for item in files:
        homes[Path(item.folder).name].add(item.path)
    assert homes == {"bundle": names_in(bundle), "reference": names_in(reference)}
    assert {file.path for file in job.reference} == names_in(reference)
    assert "slim.float32.onnx" in (bundle / "README.md").read_text()
    assert "slim.int8.onnx" not in (bundle / "README.md").read_text()
    manifest = read_manifest(bundle)
    assert manifest.budgets == dict(job.board.budgets.limits()) and manifest.model == "net"
    describe_folders([bundle, reference])  # every hash is still the file's
    assert list(without_gain(files))  # measured again it stays as it is
    assert ship_what_gains(job, files) == files


@pytest.mark.parametrize(
    "changes",
    [
        {"measured_on": "host", "host_matches_board": False},
        {"benchable": False},
        {"runtime": None, "latency_ms": None},
    ],
)
def test_latencies_that_say_nothing_of_the_board_decide_nothing(job, changes):
    items = measured(job, "slim.int8")
    items = tuple(replace(item, **changes) for item in items)
    assert list(without_gain(items)) == []
    assert ship_what_gains(job, items) == items
    assert names_in(job.folder.staged / "bundle") == {"slim.int8.onnx", "slim.int8.tflite"}


def test_faster_or_smaller_stays(job):
    items = measured(job, "slim.float32")
    assert ship_what_gains(job, items) == items
    smaller = tuple(
        replace(item, size_bytes=199) if item.name == "slim.int8.onnx" else item
        for item in measured(job, "slim.int8")
    )
    assert ship_what_gains(job, smaller) == smaller
    assert job.warnings == []


def test_another_runtime_is_no_comparison(job):
    items = tuple(
        replace(item, runtime=item.precision) if item.format == "onnx" else item
        for item in measured(job, "slim.int8")
    )
    assert list(without_gain(items)) == []


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({}, "checked by rule, measured on the board"),
        ({"benchable": False}, "checked by rule, not measured"),
        ({"latency_ms": None}, "checked by rule, not measured"),
        ({"measured_on": "host", "host_matches_board": False}, "checked by rule, not measured"),
        (
            {"measured_on": "host", "host_matches_board": True},
            "checked by rule, measured on a host with the board's instruction sets",
        ),
    ],
)
def test_the_report_says_what_a_profile_stands_on(job, changes, wanted):
    item = replace(measured(job, "none")[0], **changes)
    assert item.to_json()["profile_status"] == wanted
    float_file = next(i for i in measured(job, "none") if i.precision == "float32")
    assert float_file.to_json()["profile_status"] is None
    entry = json.loads(json.dumps({**item.to_json(), "path": "bundle/slim.int8.onnx"}))
    report = {"model": "net", "board": "b", "verdict": "pass", "artifacts": [entry], "stages": {}}
    assert f"- slim.int8.onnx for x86-vnni: {wanted}" in report_markdown(report)
