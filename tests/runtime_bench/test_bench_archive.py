"""bench.pyz: the same bytes from the same sources, and a bench that runs from them alone."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import bench_models
import pytest

from runtime_bench.archive import write_archive

PACKAGE = Path(write_archive.__code__.co_filename).resolve().parent
SOURCES = sorted(PACKAGE.glob("*.py"))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with one file, packed samples and bench.pyz."""
    folder = tmp_path_factory.mktemp("made") / "bundle"
    bench_models.write_folder(folder, ["slim.float32.onnx"])
    bench_models.write_samples(folder / "samples.npz", 40)
    write_archive(folder / "bench.pyz")
    return folder


def run(
    *arguments: str | Path, flags: tuple[str, ...] = (), **variables: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *flags, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **variables},
    )


def test_the_same_sources_give_the_same_bytes(tmp_path: Path) -> None:
    copied = tmp_path / "elsewhere" / PACKAGE.name
    copied.mkdir(parents=True)
    for number, source in enumerate(reversed(SOURCES)):
        shutil.copyfile(source, copied / source.name)
        (copied / source.name).chmod(0o600)
        os.utime(copied / source.name, (1e9 + number, 1e9 + number))
    spec = importlib.util.spec_from_file_location("copied_archive", copied / "archive.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    first = write_archive(tmp_path / "first.pyz").read_bytes()
    assert module.write_archive(tmp_path / "second.pyz").read_bytes() == first
    assert first.startswith(b"#!/usr/bin/env python3\n")
    assert os.access(tmp_path / "first.pyz", os.X_OK)


def test_without_a_folder_it_measures_the_one_it_lies_in(bundle: Path, tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    done = run(bundle / "bench.pyz", "--samples", "--runs", "2", "--json", figures)
    assert done.returncode == 1, done.stderr  # the labels are torch's own answers, hence 25 points
    assert "fail: slim.float32.onnx accuracy_drop_points 25 points" in done.stdout
    (item,) = json.loads(figures.read_text())["measurements"]
    assert (item["name"], item["samples"], item["latency_runs"]) == ("slim.float32.onnx", 40, 2)
    assert 0.7 < item["top1"] < 0.8  # three labels of four are the network's own answers
    assert item["peak_rss_no_arena_bytes"] > 0
    assert Path(item["folder"]) == bundle.resolve()


def test_a_tampered_bundle_is_refused(bundle: Path, tmp_path: Path) -> None:
    copied = tmp_path / "bundle"
    shutil.copytree(bundle, copied)
    sums = f"{'0' * 64}  samples.npz\n"
    (copied / "SHA256SUMS").write_text(sums)
    done = run(copied / "bench.pyz", "--runs", "1")
    assert done.returncode == 2
    assert "samples.npz has another sha256" in done.stderr


def test_samples_that_are_not_packed(bundle: Path, tmp_path: Path) -> None:
    bare = bench_models.write_folder(tmp_path / "bare", ["slim.float32.onnx"])
    done = run(bundle / "bench.pyz", bare, "--samples")
    assert done.returncode == 2
    assert "holds no samples.npz" in done.stderr and "--bundle-samples" in done.stderr


def test_no_runtime_at_all(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "onnxruntime.py").write_text("raise ImportError('not on this board')")
    done = run(bundle / "bench.pyz", "--runs", "1", PYTHONPATH=str(tmp_path))
    assert done.returncode == 4
    assert "nothing was measured" in done.stderr and "onnxruntime" in done.stderr


def test_no_numpy(bundle: Path) -> None:
    done = run(bundle / "bench.pyz", flags=("-S",))
    assert done.returncode == 4
    assert "has no numpy" in done.stderr and "Traceback" not in done.stderr


def test_elsewhere_a_folder_has_to_be_named() -> None:
    done = run("-m", "runtime_bench")
    assert done.returncode == 2
    assert "which folder?" in done.stderr


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.name)
def test_the_language_is_that_of_python_3_8(source: Path) -> None:
    tree = ast.parse(source.read_text(encoding="utf-8"), feature_version=(3, 8))
    futures = [n for n in tree.body if isinstance(n, ast.ImportFrom) and n.module == "__future__"]
    assert futures, "annotations such as `int | None` would be evaluated"
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    strict = [c for c in calls if "strict" in {keyword.arg for keyword in c.keywords}]
    assert not strict, "zip(strict=...) came with 3.10"
    eager = [n for n in tree.body if isinstance(n, ast.Import | ast.ImportFrom)]
    names = {getattr(n, "module", None) for n in eager} | {a.name for n in eager for a in n.names}
    assert "numpy.typing" not in names, "old boards have a numpy without it"
