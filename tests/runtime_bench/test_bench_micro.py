"""TensorFlow Lite Micro: its answers, its arena, and the checks that stand on it."""

from __future__ import annotations

import os
from pathlib import Path

import bench_models
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime_bench import BenchError, Measurement, measure_folder, read_manifest, verdict
from runtime_bench.micro import ALIGNMENT, _survives, measure_arena, run_once, smallest_arena
from runtime_bench.runtimes import import_runtime, load_runner

pytest.importorskip("tflite_micro", reason="tflite-micro has no wheel for this Python")
NAME = "slim.int8.tflite"
BOARD = {"id": "bench-mcu", "kind": "mcu", "arch": "armv7e-m", "isa": [], "cores": 1}
BUDGETS = {"activation_memory_mib": 0.1, "ram_mib": 0.2, "flash_mib": 0.0001}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("mcu") / "bundle"
    return bench_models.write_folder(made, [NAME], board=BOARD, budgets=BUDGETS)


@pytest.fixture(scope="module")
def measured(folder: Path) -> Measurement:
    samples = folder.parent / "samples.npz"
    bench_models.write_samples(samples, 40)
    (item,) = measure_folder(folder, samples=samples, runs=2, warmup=1, runtime="tflite-micro")
    return item


@given(need=st.integers(1, 10**6), guess=st.integers(0, 10**6))
def test_bisection_finds_the_smallest(need: int, guess: int) -> None:
    found = smallest_arena(lambda size_bytes: size_bytes >= need, guess)
    assert found % ALIGNMENT == 0
    assert found - ALIGNMENT < need <= found


def test_no_arena_is_large_enough() -> None:
    with pytest.raises(BenchError, match="no arena"):
        smallest_arena(lambda size_bytes: False, 100)


def test_a_crash_is_a_failure_of_the_copy_alone() -> None:
    def fail() -> None:
        raise ValueError

    assert _survives(lambda: None)
    assert not _survives(fail)
    assert not _survives(os.abort)


def test_answers_are_the_classifiers(folder: Path) -> None:
    manifest = read_manifest(folder)
    (file,) = manifest.files
    runner = load_runner(folder / NAME, file, 1, runtime="tflite-micro")
    assert runner.runtime.startswith("tflite-micro 0.")
    images = np.random.default_rng(5).integers(0, 256, (8, 4, 5, 3), dtype=np.uint8)
    batch = bench_models.normalised(images)
    grid = np.rint(batch / bench_models.INPUT_SCALE) * bench_models.INPUT_SCALE
    wanted = bench_models.logits(grid.astype(np.float32))
    found = np.concatenate([runner.run(image[None]) for image in batch])
    assert np.abs(found - wanted).max() <= bench_models.OUTPUT_SCALE * 0.51
    assert np.array_equal(runner.run_all(batch[:1])[0], found[:1])


def test_the_arena(folder: Path) -> None:
    arena = measure_arena(folder / NAME)
    assert arena.operators == ("FULLY_CONNECTED",)
    assert arena.head_bytes + arena.tail_bytes == arena.total_bytes
    # input and output lie there together, at batch 1
    assert arena.head_bytes >= bench_models.FEATURES + bench_models.CLASSES
    module = import_runtime("tflite", ("tflite-micro",))
    content = (folder / NAME).read_bytes()
    run_once(module, content, arena.smallest_bytes)
    assert not _survives(lambda: run_once(module, content, arena.smallest_bytes - ALIGNMENT))


def test_measured_in_tflite_micro(measured: Measurement) -> None:
    assert measured.runtime is not None and measured.runtime.startswith("tflite-micro")
    assert measured.samples == 40
    assert measured.top1 is not None and 0.6 < measured.top1 < 0.9
    assert measured.arena is not None
    assert measured.ram_bytes == measured.arena["smallest_bytes"]


def test_the_arena_stands_in_for_the_lower_bound(folder: Path, measured: Measurement) -> None:
    checks = {c.budget: c for c in verdict([measured], read_manifest(folder), baseline_top1=None)}
    assert list(checks) == ["activation_memory_mib", "ram_mib", "flash_mib"]
    assert checks["ram_mib"].value == checks["activation_memory_mib"].value
    assert checks["ram_mib"].value == pytest.approx(measured.arena["smallest_bytes"] / 2**20)
    assert checks["ram_mib"].status == "pass" and "smallest arena" in checks["ram_mib"].note
    assert checks["flash_mib"].value == pytest.approx(measured.size_bytes / 2**20)
    assert checks["flash_mib"].status == "fail"
