"""The runners against numpy's own computation of the same classifier."""

import sys
import types
from dataclasses import replace

import bench_models
import numpy as np
import pytest

from runtime_bench import BenchError, Manifest, RuntimeMissingError, read_manifest
from runtime_bench.runtimes import import_runtime, load_runner
from runtime_bench.worker import EVALUATION_BATCH, _batch_size

NAMES = ["slim.float32.onnx", "slim.int8.onnx", "slim.float32.tflite", "slim.int8.tflite"]


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    folder = tmp_path_factory.mktemp("runtimes")
    return read_manifest(bench_models.write_folder(folder, NAMES))


@pytest.fixture
def batch() -> np.ndarray:
    shape = (1, bench_models.CHANNELS, bench_models.HEIGHT, bench_models.WIDTH)
    return np.random.default_rng(5).normal(0, 1, shape).astype(np.float32)


def file_of(manifest: Manifest, name: str):  # type: ignore[no-untyped-def]
    return next(file for file in manifest.files if file.name == name)


@pytest.mark.parametrize("name", ["slim.float32.onnx", "slim.float32.tflite"])
@pytest.mark.parametrize("threads", [1, 2])
def test_float_files_give_numpys_logits(
    manifest: Manifest, batch: np.ndarray, name: str, threads: int
) -> None:
    runner = load_runner(manifest.folder / name, file_of(manifest, name), threads)
    assert np.allclose(runner.run(batch), bench_models.logits(batch), atol=1e-4)


@pytest.mark.parametrize("name", ["slim.int8.onnx", "slim.int8.tflite"])
def test_int8_files_stay_within_their_steps(
    manifest: Manifest, batch: np.ndarray, name: str
) -> None:
    runner = load_runner(manifest.folder / name, file_of(manifest, name), 1)
    # Input rounded to the grid by hand; weights lie on it. The output's step is half a scale.
    stored = np.clip(np.round(batch / bench_models.INPUT_SCALE) - 5, -128, 127)
    seen = ((stored + 5) * bench_models.INPUT_SCALE).astype(np.float32)
    step = bench_models.OUTPUT_SCALE if name.endswith("tflite") else 0.0
    error = np.abs(runner.run(batch) - bench_models.logits(seen)).max()
    assert error <= step * 0.5 + 1e-3


def test_versions_are_named(manifest: Manifest) -> None:
    import onnxruntime

    names = [load_runner(manifest.folder / f.path, f, 1).runtime for f in manifest.files]
    assert names[0] == f"onnxruntime {onnxruntime.__version__}"
    assert names[2].startswith("ai-edge-litert ")


def test_only_onnx_takes_batches(manifest: Manifest, batch: np.ndarray) -> None:
    file = file_of(manifest, "slim.float32.onnx")
    onnx_runner = load_runner(manifest.folder / file.path, file, 1, arena=False)
    many = np.concatenate([batch, 2 * batch, -batch])
    assert np.allclose(onnx_runner.run(many), bench_models.logits(many), atol=1e-4)
    assert _batch_size(onnx_runner, file) == EVALUATION_BATCH
    # 32 MiB of activations per image: two of them fill what the evaluation may take.
    assert _batch_size(onnx_runner, replace(file, activation_bytes=32 * 2**20)) == 2
    assert _batch_size(onnx_runner, replace(file, activation_bytes=2**40)) == 1
    tflite = file_of(manifest, "slim.int8.tflite")
    assert _batch_size(load_runner(manifest.folder / tflite.path, tflite, 1), tflite) == 1


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("slim.float32.onnx", {"dtype": "float16"}, "name and dtype of tensor 'image'"),
        ("slim.float32.onnx", {"name": "pixels"}, "name and dtype of tensor 'pixels'"),
        ("slim.float32.tflite", {"dtype": "int8"}, "dtype of tensor 'image' is float32"),
        ("slim.float32.tflite", {"shape": (1, 5, 4, 3)}, "shape of tensor 'image'"),
        ("slim.int8.tflite", {"scale": 0.031}, "scale and zero point of tensor 'image'"),
        ("slim.int8.tflite", {"zero_point": 0}, "scale and zero point of tensor 'image'"),
    ],
)
def test_a_manifest_that_contradicts_its_file_is_refused(
    manifest: Manifest, name: str, changes: dict, message: str
) -> None:
    file = file_of(manifest, name)
    wrong = replace(file, input=replace(file.input, **changes))
    with pytest.raises(BenchError, match=message):
        load_runner(manifest.folder / name, wrong, 1)


def hide(monkeypatch: pytest.MonkeyPatch, *modules: str) -> None:
    for module in modules:
        monkeypatch.setitem(sys.modules, module, None)


def test_tflite_runtime_serves_where_litert_is_absent(
    manifest: Manifest, batch: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ai_edge_litert.interpreter import Interpreter

    package = types.ModuleType("tflite_runtime")
    module = types.ModuleType("tflite_runtime.interpreter")
    module.Interpreter = Interpreter  # type: ignore[attr-defined]
    hide(monkeypatch, "ai_edge_litert", "ai_edge_litert.interpreter")
    monkeypatch.setitem(sys.modules, "tflite_runtime", package)
    monkeypatch.setitem(sys.modules, "tflite_runtime.interpreter", module)
    name = "slim.float32.tflite"
    runner = load_runner(manifest.folder / name, file_of(manifest, name), 1)
    assert runner.runtime.startswith("tflite-runtime")
    assert np.allclose(runner.run(batch), bench_models.logits(batch), atol=1e-4)


def test_a_missing_runtime_says_what_was_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    hide(monkeypatch, "onnxruntime", "ai_edge_litert", "ai_edge_litert.interpreter")
    hide(monkeypatch, "tflite_runtime", "tflite_runtime.interpreter")
    hide(monkeypatch, "tflite_micro", "tflite_micro.python.tflite_micro.runtime")
    with pytest.raises(RuntimeMissingError, match="no onnx runtime can be imported"):
        import_runtime("onnx")
    tried = r"ai-edge-litert: .*; tflite-runtime: .*; tflite-micro: "
    with pytest.raises(RuntimeMissingError, match=tried):
        import_runtime("tflite")
