"""Files that take pixels give the answers of files that take normalised images."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from exporting import exported
from hypothesis import given
from hypothesis import strategies as st

from boards import load_board
from exporters import Normalisation, UnsupportedExportError, write_bundle
from exporters.artifacts import TensorSpec
from exporters.checks import onnx_runner, tflite_runner
from exporters.inspect_tflite import TfliteGraph
from exporters.layer_files import LayerSpec, layer_file
from exporters.raw_input import take_pixels
from runtime_bench import read_manifest
from runtime_bench.quantize import to_native
from runtime_bench.runtimes import load_runner

DONE = Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
# What the small net was trained with is 0.5: there pixels lie half-way between integers, and the
# least difference of two sums decides how they round.
NEAR = Normalisation((0.48, 0.5, 0.51), (0.25, 0.26, 0.27))
CLASSES = ("a", "b", "c", "d")


def pixels(count: int, side: int) -> np.ndarray:
    """uint8 [count, 3, side, side]."""
    return np.random.default_rng(0).integers(0, 256, (count, 3, side, side), dtype=np.uint8)


def normalised(images: np.ndarray, done: Normalisation = DONE) -> np.ndarray:
    mean, std = (np.reshape(value, (1, 3, 1, 1)) for value in (done.mean, done.std))
    return ((images / 255 - mean) / std).astype(np.float32)


@given(
    st.lists(st.floats(0, 1), min_size=3, max_size=3),
    st.lists(st.floats(0.05, 2), min_size=3, max_size=3),
)
def test_pixels_come_back_from_normalised_images(mean, std):
    done = Normalisation(tuple(mean), tuple(std))
    every = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16).repeat(3, 1)
    batch = every * done.factor.reshape(1, 3, 1, 1) + done.shift.reshape(1, 3, 1, 1)
    assert (done.pixels(batch.astype(np.float32)) == every).all()


def test_the_manifests_entry_comes_back():
    spec = TensorSpec("input", (1, 8, 8, 3), "uint8", layout="NHWC", normalisation=DONE)
    entry = json.loads(json.dumps(spec.to_json()))
    assert entry["normalisation"]["std"] == list(DONE.std)
    assert TensorSpec.from_json(entry) == spec
    assert "normalisation" not in TensorSpec("logits", (1, 4), "float32").to_json()


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_a_padded_tflite_layer(tmp_path, precision):
    spec = LayerSpec("conv", 3, 8, (3, 3), (1, 1), (1, 1), (1, 1), (8, 8))
    path = tmp_path / "layer.tflite"
    board = load_board("x86-64")
    path.write_bytes(layer_file(spec, format="tflite", precision=precision, board=board))
    (name,) = [t.name.decode() for t in TfliteGraph(path).tensors][-1:]
    images = pixels(4, 8)
    wanted = tflite_runner(path, [name])(normalised(images))[0]
    take_pixels(path, DONE)
    graph = TfliteGraph(path)
    assert graph.dtype(int(graph.subgraph.inputs[0])) == "uint8"
    names = [graph.op_name(operator) for operator in graph.operators]
    front = ["CAST", "MUL", "ADD", *(["QUANTIZE"] if precision == "int8" else [])]
    assert names == [*front, "CONV_2D"]
    found = tflite_runner(path, [name], DONE)(normalised(images))[0]
    step = np.abs(wanted).max() * 1e-5 if precision == "float32" else 0.04  # one output step
    assert np.abs(found - wanted).max() <= 1.01 * step
    assert (np.abs(found - wanted) > 1e-4).mean() <= 0.01


@pytest.fixture(scope="module")
def folders(tmp_path_factory, small_net, calibration, validation_images):
    """Two bundles of ONNX files, the second one for pixels."""
    found = []
    for raw in (None, NEAR):
        folder = tmp_path_factory.mktemp("pixels" if raw else "images")
        batch = normalised(NEAR.pixels(validation_images), NEAR)
        files = exported(
            small_net, folder, batch, "float32", "int8",
            calibration=calibration, formats=("onnx",), raw_input=raw,
        )  # fmt: skip
        write_bundle(
            folder,
            files,
            board=load_board("x86-64"),
            model="small",
            classes=CLASSES,
            input_shape=(3, 16, 16),
            preprocessing={
                "resize": 16,
                "mean": list(NEAR.mean),
                "std": list(NEAR.std),
                "scale": 1 / 255,
                "channel_order": "RGB",
            },
        )
        found.append((folder, {file.precision: file for file in files}))
    return found


def test_onnx_files_answer_alike(folders):
    (plain, entries), (raw, others) = folders
    done = others["int8"].input.normalisation
    batch = normalised(pixels(50, 16), NEAR)
    for precision, file in others.items():
        assert (file.input.dtype, file.input.layout) == ("uint8", "NCHW")
        assert entries[precision].input.normalisation is None
        name = file.path
        wanted = onnx_runner(plain / name, ["logits"])(batch)[0]
        found = onnx_runner(raw / name, ["logits"], done)(batch)[0]
        tolerance = 1e-5 if precision == "float32" else 0.02
        assert np.abs(found - wanted).max() <= tolerance * np.abs(wanted).max()
    assert others["int8"].fused_integer_convs == entries["int8"].fused_integer_convs == 9
    model = onnx.load(str(raw / "slim.int8.onnx"))
    assert model.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8


def test_the_bench_feeds_pixels(folders):
    (plain, _), (raw, _) = folders
    batch = normalised(pixels(8, 16), NEAR)
    answers = []
    for folder in (plain, raw):
        manifest = read_manifest(folder)
        (file,) = [file for file in manifest.files if file.precision == "float32"]
        runner = load_runner(folder / file.path, file, 1)
        answers.append(runner.run(batch))
    assert to_native(batch, file.input).dtype == np.uint8
    assert (to_native(batch, file.input) == pixels(8, 16)).all()
    np.testing.assert_allclose(*answers, atol=1e-4)


def test_the_example_feeds_pixels(folders, tmp_path):
    from PIL import Image

    image = pixels(1, 16)[0].transpose(1, 2, 0)
    Image.fromarray(image).save(tmp_path / "image.png")
    logits = []
    for folder, _ in folders:
        example = load_example(folder / "example.py")
        manifest = json.loads((folder / "manifest.json").read_text())
        entry, runtime = example.choose(manifest["files"], "slim.float32.onnx")
        loaded = example.load_image(str(tmp_path / "image.png"), manifest)
        assert loaded.dtype == np.uint8 and (loaded[0] == image).all()
        given = example.to_input(loaded, entry["input"], manifest["preprocessing"])
        logits.append(example.run(entry, runtime, given))
    np.testing.assert_allclose(*logits, atol=1e-4)


def load_example(path: Path):
    spec = importlib.util.spec_from_file_location("example_of_bundle", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_boards_with_integers_alone_refuse_pixels(small_net, tmp_path, calibration):
    with pytest.raises(UnsupportedExportError, match="coral is for int8 files only.*float"):
        exported(
            small_net, tmp_path, np.zeros((1, 3, 16, 16), np.float32), "int8",
            board=load_board("coral"), formats=("tflite",), raw_input=DONE,
        )  # fmt: skip
