"""manifest.json round trip, and a bundle that works on its own."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from boards import load_board
from exporters import ExportError, write_bundle, write_manifest
from exporters.bundle import read_manifest_files
from runtime_bench import describe_folders

CLASSES = ["stripes", "columns", "checks", "plain"]


@pytest.fixture
def bundle(pc_folder, tmp_path):
    """A copy of the folder, complete."""
    folder = tmp_path / "bundle"
    shutil.copytree(pc_folder.path, folder)
    write_bundle(folder, pc_folder.files, **_about(pc_folder))
    return folder


def _about(folder):
    return {
        "board": load_board("x86-64"),
        "model": "smallnet",
        "classes": CLASSES,
        "input_shape": (3, 16, 16),
        "preprocessing": {
            "resize": 16,
            "mean": [0.5, 0.5, 0.5],
            "std": [0.25, 0.25, 0.25],
            "scale": 1 / 255,
            "channel_order": "RGB",
        },
    }


def test_manifest_round_trip(bundle, pc_folder):
    assert read_manifest_files(bundle) == pc_folder.files
    manifest = json.loads((bundle / "manifest.json").read_text())
    assert manifest["schema_version"] == 1
    assert manifest["board"]["id"] == "x86-64" and manifest["board"]["arch"] == "x86_64"
    assert manifest["input"] == {"channels": 3, "height": 16, "width": 16}
    assert None not in manifest["budgets"].values()
    assert manifest["classes"] == CLASSES
    for entry in manifest["files"]:
        content = (bundle / entry["path"]).read_bytes()
        assert entry["sha256"] == hashlib.sha256(content).hexdigest()
        assert entry["size_bytes"] == len(content)


def test_manifest_refuses_a_changed_or_missing_file(bundle, pc_folder):
    path = bundle / "slim.int8.onnx"
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(ExportError, match="slim.int8.onnx has changed"):
        write_manifest(bundle, pc_folder.files, **_about(pc_folder))
    path.unlink()
    with pytest.raises(ExportError, match="slim.int8.onnx is missing"):
        write_manifest(bundle, pc_folder.files, **_about(pc_folder))


@pytest.mark.parametrize(
    ("board", "elsewhere"),
    [
        ("x86-64", {}),
        ("jetson", {"onnx": "tensorrt"}),
        ("coral", {"tflite": "edge-tpu"}),
        ("stm32f746", {"tflite": "tflite-micro"}),
    ],
)
def test_no_precision_has_a_cpu_latency_where_an_accelerator_computes(
    pc_folder, tmp_path, board, elsewhere
):
    """Whatever was checked of a file: float files run on TensorRT, too."""
    files = [pc_folder.file("slim.float32.onnx"), pc_folder.file("slim.float32.tflite")]
    for file in files:
        shutil.copy(pc_folder.path / file.path, tmp_path)
    write_manifest(tmp_path, files, **_about(pc_folder) | {"board": load_board(board)})
    assert (
        json.loads((tmp_path / "manifest.json").read_text())["board"]["timed_elsewhere"]
        == elsewhere
    )
    found = {item.format: item.benchable for item in describe_folders([tmp_path])}
    assert found == {format: format not in elsewhere for format in ("onnx", "tflite")}


def test_readme_has_the_boards_command(jetson_folder, tmp_path):
    folder = tmp_path / "bundle"
    shutil.copytree(jetson_folder.path, folder)
    about = _about(jetson_folder) | {"board": load_board("jetson")}
    write_bundle(folder, jetson_folder.files, **about)
    readme = (folder / "README.md").read_text()
    assert "trtexec --onnx=slim.int8.onnx" in readme
    assert "{" not in readme
    assert (folder / "labels.txt").read_text().splitlines() == CLASSES


@pytest.mark.parametrize("name", [None, "slim.int8.tflite", "slim.float32.onnx", "slim.int8.onnx"])
def test_example_classifies_an_image_from_the_bundle_alone(bundle, tmp_path, name):
    rows, columns = np.indices((24, 32))
    pattern = (columns // 3 % 2)[..., None] * np.array([100, 100, 100]) + 80
    image = tmp_path / "image.png"
    Image.fromarray(pattern.astype(np.uint8)).save(image)
    done = subprocess.run(
        [sys.executable, "-I", str(bundle / "example.py"), str(image), *([name] if name else [])],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    label, odds, file = done.stdout.split()
    assert label == "columns"
    assert 0.4 < float(odds) <= 1
    assert name is None or file == f"({name})"


def test_example_without_a_runtime_or_file_says_so(bundle, tmp_path):
    image = tmp_path / "image.png"
    Image.new("RGB", (16, 16)).save(image)
    command = [sys.executable, str(bundle / "example.py"), str(image), "other.onnx"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "no such file" in done.stderr and "Traceback" not in done.stderr
