"""Whole measurements of small folders, in real measuring processes."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import bench_models
import numpy as np
import pytest
from sklearn.metrics import accuracy_score, precision_score, recall_score

from runtime_bench import (
    BenchError,
    ManifestError,
    Measurement,
    SamplesError,
    measure_folder,
    measure_folders,
    read_manifest,
    verdict,
)
from runtime_bench.__main__ import main

BUNDLE = ["slim.int8.onnx", "slim.int8.tflite"]
REFERENCE = ["baseline.float32.onnx", "slim.float32.onnx", "slim.float32.tflite"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("measure")
    bench_models.write_folder(root / "bundle", BUNDLE)
    bench_models.write_folder(root / "reference", REFERENCE)
    bench_models.write_samples(root / "samples.npz")
    return root


@pytest.fixture(scope="module")
def steps() -> list[str]:
    return []


@pytest.fixture(scope="module")
def measured(root: Path, steps: list[str]) -> tuple[Measurement, ...]:
    folders = [root / "bundle", root / "reference"]
    return measure_folders(
        folders, samples=root / "samples.npz", runs=25, warmup=2, progress=steps.append
    )


def test_every_file_is_measured_in_order(
    measured: tuple[Measurement, ...], steps: list[str]
) -> None:
    assert [item.name for item in measured] == BUNDLE + REFERENCE
    assert "latency: round 2 of 2" in steps
    for item in measured:
        assert item.latency_runs == 25
        assert item.latency_ms is not None
        assert 0 < item.latency_ms["p50"] <= item.latency_ms["p90"] <= item.latency_ms["p99"]
        assert item.measured_on == "host"
        assert (item.threads, item.note) == (1, "")


def test_accuracy_figures_equal_scikit_learns(
    root: Path, measured: tuple[Measurement, ...]
) -> None:
    arrays = np.load(root / "samples.npz")
    batch = bench_models.normalised(arrays["images"])
    predictions = bench_models.logits(batch).argmax(axis=1)
    item = next(item for item in measured if item.name == "slim.float32.onnx")
    labels, options = arrays["labels"], {"average": "macro", "zero_division": 0}
    assert item.top1 == pytest.approx(accuracy_score(labels, predictions))
    assert item.precision_macro == pytest.approx(precision_score(labels, predictions, **options))
    assert item.recall_macro == pytest.approx(recall_score(labels, predictions, **options))
    assert item.agreement == 1.0
    assert item.samples == len(labels)
    assert item.eval_seconds is not None and item.eval_seconds > 0


def test_agreement_is_with_the_files_own_stage(measured: tuple[Measurement, ...]) -> None:
    by_name = {item.name: item for item in measured}
    # The samples' predictions_baseline are the labels, which the classifier misses 1 in 4 times.
    assert by_name["baseline.float32.onnx"].agreement == pytest.approx(0.75)
    assert by_name["slim.float32.tflite"].agreement == 1.0
    assert by_name["slim.int8.tflite"].agreement == pytest.approx(1.0, abs=0.05)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_memory_figures_are_in_order(measured: tuple[Measurement, ...]) -> None:
    for item in measured:
        assert item.rss_before_load_bytes is not None and item.peak_rss_bytes is not None
        assert item.rss_after_load_bytes is not None
        assert item.rss_before_load_bytes > 10 * 2**20
        assert item.rss_before_load_bytes <= item.rss_after_load_bytes <= item.peak_rss_bytes
        assert (item.peak_rss_no_arena_bytes is None) == (item.format == "tflite")


def test_a_metric_of_the_users_is_not_measured_here(tmp_path: Path, root: Path) -> None:
    """Top-1 would be another figure than the one that the budget is about."""
    budgets = {"file_size_mib": 1.0, "accuracy_drop_points": 1.0}
    changes = {"metric": "mine:iou", "budgets": budgets}
    bench_models.write_folder(tmp_path / "bundle", ["slim.int8.onnx"], **changes)
    (item,) = measure_folder(tmp_path / "bundle", samples=root / "samples.npz", runs=2, warmup=0)
    assert item.top1 is None
    assert item.latency_ms is not None
    checks = verdict([item], read_manifest(tmp_path / "bundle"), baseline_top1=0.75)
    assert [(c.budget, c.status) for c in checks] == [
        ("file_size_mib", "pass"),
        ("accuracy_drop_points", "unverified"),
    ]
    assert checks[1].note == "accuracy is the metric mine:iou, which needs compress-export"


def test_figures_are_plain_json(measured: tuple[Measurement, ...]) -> None:
    data = json.loads(json.dumps([item.to_json() for item in measured]))
    assert data[0]["weight_bytes"] == {"int8": 240, "int32": 16}
    assert data[0]["size_bytes"] == measured[0].size_bytes


def test_the_bundle_is_judged_on_these_figures(
    root: Path, measured: tuple[Measurement, ...]
) -> None:
    checks = verdict(measured, read_manifest(root / "bundle"), baseline_top1=0.75)
    assert [(check.file, check.budget, check.status) for check in checks] == [
        (name, budget, "pass")
        for name in BUNDLE
        for budget in ("file_size_mib", "accuracy_drop_points")
    ]


@pytest.mark.parametrize(
    ("variable", "asked", "said"),
    [
        ("bench-board", "auto", "board"),
        ("other", "auto", "host"),
        ("bench-board", False, "host"),
        ("", True, "board"),
    ],
)
def test_the_board_is_who_says_so(
    root: Path, monkeypatch: pytest.MonkeyPatch, variable: str, asked: object, said: str
) -> None:
    monkeypatch.setenv("COMPRESS_EXPORT_BOARD", variable)
    bench_models.write_folder(root / "one", ["slim.float32.tflite"])
    (item,) = measure_folder(root / "one", runs=1, warmup=0, board_is_host=asked)  # type: ignore[arg-type]
    assert item.measured_on == said
    assert item.top1 is None and item.samples is None


def test_a_missing_runtime_is_a_note_not_a_figure(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "onnxruntime.py").write_text("raise ImportError('not for this board')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    items = measure_folder(root / "bundle", samples=root / "samples.npz", runs=1, warmup=0)
    assert items[0].latency_ms is None and items[0].top1 is None and items[0].runtime is None
    assert "onnxruntime: not for this board" in items[0].note
    assert items[1].latency_ms is not None
    checks = verdict(items, read_manifest(root / "bundle"), baseline_top1=0.75)
    assert [check.status for check in checks] == ["pass", "unverified", "pass", "pass"]
    assert "not for this board" in checks[1].note


def test_a_file_that_is_no_model_is_a_bench_error(tmp_path: Path) -> None:
    folder = bench_models.write_folder(tmp_path / "bundle", ["slim.int8.tflite"])
    (folder / "slim.int8.tflite").write_bytes(b"no flatbuffer at all" * 10)
    manifest = json.loads((folder / "manifest.json").read_text())
    entry = bench_models.file_entry(folder, "slim.int8.tflite")
    (folder / "manifest.json").write_text(json.dumps({**manifest, "files": [entry]}))
    with pytest.raises(BenchError, match=r"^slim\.int8\.tflite: ValueError"):
        measure_folder(folder, runs=1)


def test_users_mistakes_stop_before_measuring(root: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.npz").write_bytes(b"x")
    with pytest.raises(SamplesError):
        measure_folder(root / "bundle", samples=tmp_path / "bad.npz")
    with pytest.raises(ValueError, match="threads 0, runs 100"):
        measure_folder(root / "bundle", threads=0)
    other = {"id": "other", "kind": "linux", "arch": "x86_64", "isa": [], "cores": 1}
    bench_models.write_folder(tmp_path / "other", ["slim.int8.onnx"], board=other)
    with pytest.raises(ManifestError, match="folders of one board expected, got 2"):
        measure_folders([root / "bundle", tmp_path / "other"])


def test_command_line_writes_json_and_gates(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    budgets = {"file_size_mib": 0.000001, "latency_p90_ms": 1e6}
    folder = bench_models.write_folder(tmp_path / "b", ["slim.int8.tflite"], budgets=budgets)
    out = tmp_path / "figures.json"
    samples = str(root / "samples.npz")
    code = main([str(folder), "--samples", samples, "--runs", "2", "--json", str(out)])
    assert code == 1
    assert "fail: slim.int8.tflite file_size_mib" in capsys.readouterr().out
    data = json.loads(out.read_text())
    assert data["verdict"] == "fail"
    assert data["measurements"][0]["latency_runs"] == 2


def test_command_line_mistakes_exit_2(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("runtime-bench: ")
    for wrong in (
        ["--runs", "0"],
        ["--json", str(tmp_path / "no" / "x.json")],
        ["--json", str(tmp_path)],
        ["--what"],
    ):
        with pytest.raises(SystemExit) as caught:
            main([str(root / "bundle"), *wrong])
        assert caught.value.code == 2


def test_command_line_require_measured_exits_4(tmp_path: Path) -> None:
    board = {"id": "far", "kind": "linux", "arch": "riscv64", "isa": [], "cores": 1}
    folder = bench_models.write_folder(
        tmp_path / "b", ["slim.int8.tflite"], board=board, budgets={"latency_p90_ms": 1e6}
    )
    assert main([str(folder), "--runs", "1", "--require-measured"]) == 4
    assert main([str(folder), "--runs", "1"]) == 0


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_command_line_ends_on_signals(root: Path, number: signal.Signals, code: int) -> None:
    command = [sys.executable, "-m", "runtime_bench", str(root / "bundle"), "--runs", "100000000"]
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("latency: round 2 "):
                break
        process.send_signal(number)
        # The pipe closes once the measuring processes, which could hold it too, are gone.
        rest = process.stderr.read()
        assert process.wait(60) == code
    assert "Traceback" not in rest
