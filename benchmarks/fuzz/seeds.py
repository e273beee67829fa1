"""The corpus that fuzzing starts from: small good files, made by code."""

from __future__ import annotations

import hashlib
import io
import json
import tempfile
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

_HASH = hashlib.sha256(b"x").hexdigest()
_TENSOR = {"name": "x", "shape": [-1, 3, 8, 8], "dtype": "int8", "scale": 0.1, "zero_point": 0}
_MEASUREMENT = {
    "name": "slim.int8.onnx", "stage": "slim", "path": "slim.int8.onnx", "format": "onnx",
    "precision": "int8", "size_bytes": 1000, "sha256": _HASH, "weight_bytes": {"int8": 800},
    "activation_bytes": 64, "threads": 1, "measured_on": "host", "host_matches_board": True,
    "top1": 0.9, "latency_ms": {"p50": 1.0, "p90": 2.0, "p99": 3.0}, "peak_rss_bytes": 10**7,
    "runtime": "onnxruntime 1.20", "note": "", "profile": "x86", "benchable": True,
}  # fmt: skip
_CHECKS = [
    {"file": "slim.int8.onnx", "budget": name, "value": 0.5, "limit": 1.0, "unit": unit,
     "status": "pass", "note": ""}
    for name, unit in (("file_size_mib", "MiB"), ("latency_p90_ms", "ms"),
                       ("accuracy_drop_points", "points"))
]  # fmt: skip
_HOST = {"arch": "x86_64", "isa": ["avx2"], "cores": 2, "model": "CPU"}


def boards() -> list[bytes]:
    """Shipped descriptors, without their comments."""
    import yaml

    folder = resources.files("boards")
    texts = (folder.joinpath(f"{name}.yaml").read_text("utf-8") for name in ("jetson", "stm32h747"))
    return [yaml.safe_dump(yaml.safe_load(text)).encode() for text in texts]


def jobs() -> list[bytes]:
    """Job files."""
    return [
        b"board: jetson\nmodel: resnet20\ntarget-macs: 0.5\nstages: [prune, quantize]\n",
        b"board: x86-64\nprecision: [int8, float32]\ntarget_size: 1MiB\nmean: [0.5, 0.5, 0.5]\n"
        b"std: [0.2, 0.2, 0.2]\ntarget-latency: 5ms\nforce: true\nseed: 3\n",
    ]


def fleets() -> list[bytes]:
    """Fleet files."""
    return [b"boards: [jetson, rpi4]\n", b"boards:\n- a.yaml\n- b.yaml\n"]


def limits() -> list[bytes]:
    """Gate files."""
    return [
        b"limits:\n  size: 1MiB\n  latency: 5ms\nregressions:\n  size: 2%\n  top1: 0.2 points\n"
    ]


def manifests() -> list[bytes]:
    """A manifest with every kind of field."""
    codebook = {"path": "c", "size_bytes": 1, "sha256": _HASH, "entries": 2, "expanded_bytes": 9}
    files = [
        {"name": "slim.int8.onnx", "stage": "slim", "path": "slim.int8.onnx", "format": "onnx",
         "side_files": ["w.bin", {"path": "v.bin", "sha256": _HASH}], "precision": "int8",
         "size_bytes": 10, "sha256": _HASH, "input": {**_TENSOR, "layout": "NCHW"},
         "output": _TENSOR, "more_outputs": [_TENSOR], "weight_bytes": {"int8": 3},
         "activation_bytes": 4, "profile": {"name": "x86", "benchable": True}},
    ]  # fmt: skip
    return _json({
        "schema_version": 1, "model": "m", "classes": ["a", "b"], "metric": "top-1",
        "board": {"id": "b", "kind": "linux", "arch": "x86_64", "isa": ["avx2"], "cores": 2},
        "budgets": {"file_size_mib": 1.0, "latency_p90_ms": 5}, "codebook": codebook,
        "input": {"channels": 3, "height": 8, "width": 8}, "files": files,
        "preprocessing": {"mean": [0.5], "std": [0.5], "scale": 1.0, "channel_order": "RGB"},
    })  # fmt: skip


def sums() -> list[bytes]:
    """SHA256SUMS of one file, that the target holds."""
    return [f"{_HASH}  file\n".encode(), f"{_HASH} *file\n{_HASH}  b/c\n".encode()]


def codebooks() -> list[bytes]:
    """Codebook files: shared, plain and empty tensors."""
    from exporters import write_codebook_file

    state: dict[str, Any] = {
        "shared": np.tile(np.array([0.1, 0.2, -0.1], np.float32), 40),
        "plain": np.arange(600, dtype=np.int64),
        "none": np.zeros((0, 3), np.float16),
    }
    return [_written(".codebook", lambda path: write_codebook_file(state, path))]


def samples() -> list[bytes]:
    """Samples of a bundle, packed and plain."""
    images = np.arange(4 * 8 * 8 * 3, dtype=np.uint8).reshape(4, 8, 8, 3)
    arrays: dict[str, Any] = {"images": images, "labels": np.arange(4), "predictions_slim": [0] * 4}
    return [_npz(np.savez, **arrays), _npz(np.savez_compressed, **arrays)]


def data_arrays() -> list[bytes]:
    """Images and labels of --data."""
    x, y = np.zeros((8, 4, 4, 3), np.uint8), np.arange(8) % 2
    return [
        _npz(np.savez, x=x, y=y, classes=["cat", "dog"]),
        _npz(np.savez_compressed, train_x=x, train_y=y, test_x=x, test_y=y.astype(str)),
    ]


def lists() -> list[bytes]:
    """Lists of images; the target holds a.png to f.png."""
    rows = "".join(f"{name}.png,{'cat' if n % 2 else 'dog'}\n" for n, name in enumerate("abcdef"))
    split = "".join(f'"{name}.png";{n % 2};{"train" if n < 4 else "test"}\n'
                    for n, name in enumerate("abcdef"))  # fmt: skip
    return [f"path,label\n{rows}".encode(), f"path;label;split\n{split}".encode()]


def torch_files() -> list[bytes]:
    """Weights of the target's network, in both forms of torch.save, nested and not."""
    import torch

    state = {"weight": torch.ones(2, 3), "bias": torch.zeros(2)}
    sparse = {"weight": torch.eye(2, 3).to_sparse(), "bias": torch.zeros(2)}
    return [
        _written(".pt", lambda path: torch.save({"state_dict": state, "epoch": 3}, path)),
        _written(".pt", lambda path: torch.save(state, path, _use_new_zipfile_serialization=False)),
        _written(".pt", lambda path: torch.save(sparse, path)),
    ]


def safetensors() -> list[bytes]:
    """The same as safetensors."""
    import torch
    from safetensors.torch import save

    state = {"weight": torch.ones(2, 3), "bias": torch.zeros(2)}
    return [save(state), save({f"module.{name}": t.half() for name, t in state.items()})]


def descriptions() -> list[bytes]:
    """model.json of a slimmed ResNet-20 with every kind of edit."""
    window = {"kernel": [3, 3], "stride": [1, 1], "padding": [1, 1], "dilation": [1, 1]}
    edits = {
        "conv1": {"out_channels": 16},
        "layer1.0.conv2": {"replaced_by": "Nothing", "window": window},
        "layer1.0.bn2": {"replaced_by": "Constant", "window": None, "full_size": True},
        "layer1.1.shortcut": {"replaced_by": "Identity"},
    }
    entry = {"schema_version": 1, "architecture": "resnet20", "num_classes": 10, "edits": edits}
    return [*_json(entry), *_json({**entry, "edits": {}})]


def images() -> list[bytes]:
    """One small picture in every format that is read."""
    from PIL import Image

    from compress_export.data.decode import FORMATS

    picture = Image.fromarray(np.arange(12 * 9 * 3, dtype=np.uint8).reshape(12, 9, 3))
    found = []
    for name in FORMATS:
        for mode in ("RGB", "P" if name in ("PNG", "GIF", "TIFF") else "RGB"):
            stream = io.BytesIO()
            picture.convert(mode).save(stream, name)
            found.append(stream.getvalue())
    return list(dict.fromkeys(found))


def reports() -> list[bytes]:
    """Reports of a job, with a device, and of the bench."""
    bench = {"host": _HOST, "measurements": [_MEASUREMENT], "checks": _CHECKS, "verdict": "pass",
             "warnings": []}  # fmt: skip
    device = {"device": "a@b:/c", "measured_at": "2026-01-01T00:00:00", **bench}
    artifact = {**_MEASUREMENT, "path": "bundle/slim.int8.onnx"}
    target = {**_CHECKS[0], "file": "", "budget": "target"}
    job = {
        "schema_version": 1, "board": "jetson", "model": "m", "data": "digits", "verdict": "pass",
        "environment": {"host": _HOST, "libraries": {"torch": "2"}}, "timings_seconds": {"a": 1.0},
        "stages": {"baseline": {"top1": 0.9, "params": 1, "macs": 2, "size_bytes": 3}},
        "artifacts": [artifact], "checks": [*_CHECKS, target], "options": {"seed": 0},
        "device_measurements": [device], "command": ["compress-export"], "warnings": [],
        "limits": [],
    }  # fmt: skip
    return [*_json(job), *_json({**job, "device_measurements": []}), *_json(bench)]


def histories() -> list[bytes]:
    """A benchmark history."""
    return _json([{"name": "a", "unit": "ms", "value": 1.0, "extra": ""}])


def figures() -> list[bytes]:
    """What a device says: an answer of device.sh, then the figures of the bench."""
    said = json.loads(reports()[-1])
    return [
        b"welcome\ncompress-export: ended 0\n" + json.dumps(said).encode(),
        b"compress-export: ended 4\n",
        b"compress-export: error no-space df: full\n",
    ]


def onnx_files() -> list[bytes]:
    """Layers as the exporter writes them, float and INT8, and one with external data."""
    import onnx

    made = _layers("onnx")
    model = onnx.ModelProto.FromString(made[0])
    tensor = next(t for t in model.graph.initializer if t.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="side.bin")
    return [*made, model.SerializeToString()]


def tflite_files() -> list[bytes]:
    """The same layers as TFLite."""
    return _layers("tflite")


def _layers(format: str) -> list[bytes]:
    from boards import load_board
    from exporters.layer_files import LayerSpec, layer_file

    spec = LayerSpec("conv", 4, 4, (3, 3), (1, 1), (1, 1), input_size=(6, 6))
    board = load_board("x86-64")
    return [
        layer_file(spec, format=format, precision=precision, board=board)
        for precision in ("float32", "int8")
    ]


def _json(content: Any) -> list[bytes]:
    return [json.dumps(content).encode()]


def _npz(save: Callable[..., None], **arrays: Any) -> bytes:
    stream = io.BytesIO()
    save(stream, **arrays)
    return stream.getvalue()


def _written(suffix: str, write: Callable[[Path], Any]) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"seed{suffix}"
        write(path)
        return path.read_bytes()
