"""Tiny linear classifiers as ONNX and TFLite files, whose logits numpy can compute exactly."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

CHANNELS, HEIGHT, WIDTH, CLASSES = 3, 4, 5, 4
FEATURES = CHANNELS * HEIGHT * WIDTH
INPUT_SCALE, INPUT_ZERO = 0.03, -5
WEIGHT_SCALE = 0.01
OUTPUT_SCALE, OUTPUT_ZERO = 0.2, 3
MEAN, STD = [0.45, 0.5, 0.4], [0.25, 0.2, 0.3]

_rng = np.random.default_rng(7)
# Weights on the int8 grid, so that quantizing them loses nothing: [classes, C, H, W]
WEIGHTS_INT8 = _rng.integers(-60, 61, (CLASSES, CHANNELS, HEIGHT, WIDTH)).astype(np.int8)
WEIGHTS = (WEIGHTS_INT8 * np.float32(WEIGHT_SCALE)).astype(np.float32)
BIAS_INT32 = np.array([120, -300, 0, 50], dtype=np.int32)
BIAS = (BIAS_INT32 * np.float32(INPUT_SCALE * WEIGHT_SCALE)).astype(np.float32)


def logits(batch: np.ndarray) -> np.ndarray:
    """The classifier in numpy: float32 [b, C, H, W] -> [b, classes]."""
    return batch.reshape(len(batch), -1) @ WEIGHTS.reshape(CLASSES, -1).T + BIAS


def write_onnx(path: Path, quantized: bool = False) -> None:
    """Flatten and Gemm with a free batch; `quantized` puts the input through Q/DQ."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    nodes, source = [], "image"
    constants = [
        numpy_helper.from_array(WEIGHTS.reshape(CLASSES, -1), "weight"),
        numpy_helper.from_array(BIAS, "bias"),
    ]
    if quantized:
        constants.append(numpy_helper.from_array(np.array(INPUT_SCALE, np.float32), "scale"))
        constants.append(numpy_helper.from_array(np.array(INPUT_ZERO, np.int8), "zero"))
        nodes.append(helper.make_node("QuantizeLinear", ["image", "scale", "zero"], ["q"]))
        nodes.append(helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["dq"]))
        source = "dq"
    nodes.append(helper.make_node("Flatten", [source], ["flat"]))
    nodes.append(helper.make_node("Gemm", ["flat", "weight", "bias"], ["logits"], transB=1))
    image = helper.make_tensor_value_info(
        "image", TensorProto.FLOAT, ["N", CHANNELS, HEIGHT, WIDTH]
    )
    out = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", CLASSES])
    graph = helper.make_graph(nodes, "linear", [image], [out], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def write_tflite(path: Path, quantized: bool = False) -> None:
    """Fully connected over the NHWC image, float or int8 in and out, batch 1."""
    import flatbuffers  # type: ignore[import-untyped]
    from ai_edge_litert import schema_py_generated as schema

    weights = (WEIGHTS_INT8 if quantized else WEIGHTS).transpose(0, 2, 3, 1)  # [classes, H, W, C]
    bias = BIAS_INT32 if quantized else BIAS
    kind = schema.TensorType.INT8 if quantized else schema.TensorType.FLOAT32
    bias_kind = schema.TensorType.INT32 if quantized else schema.TensorType.FLOAT32
    model = schema.ModelT()
    model.version = 3
    model.description = "linear"
    model.buffers = [schema.BufferT() for _ in range(4)]
    model.buffers[2].data = np.frombuffer(weights.tobytes(), dtype=np.uint8)
    model.buffers[3].data = np.frombuffer(bias.tobytes(), dtype=np.uint8)

    def tensor(name: str, shape: list[int], dtype: int, buffer: int, grid: Any) -> Any:
        made = schema.TensorT()
        made.name, made.shape, made.type, made.buffer = name, shape, dtype, buffer
        if quantized:
            made.quantization = schema.QuantizationParametersT()
            made.quantization.scale, made.quantization.zeroPoint = [grid[0]], [grid[1]]
        return made

    graph = schema.SubGraphT()
    graph.tensors = [
        tensor("image", [1, HEIGHT, WIDTH, CHANNELS], kind, 0, (INPUT_SCALE, INPUT_ZERO)),
        tensor("weight", [CLASSES, FEATURES], kind, 2, (WEIGHT_SCALE, 0)),
        tensor("bias", [CLASSES], bias_kind, 3, (INPUT_SCALE * WEIGHT_SCALE, 0)),
        tensor("logits", [1, CLASSES], kind, 1, (OUTPUT_SCALE, OUTPUT_ZERO)),
    ]
    graph.inputs, graph.outputs = [0], [3]
    operator = schema.OperatorT()
    operator.opcodeIndex, operator.inputs, operator.outputs = 0, [0, 1, 2], [3]
    operator.builtinOptionsType = schema.BuiltinOptions.FullyConnectedOptions
    operator.builtinOptions = schema.FullyConnectedOptionsT()
    graph.operators = [operator]
    model.subgraphs = [graph]
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.FULLY_CONNECTED
    code.version = 4 if quantized else 1
    model.operatorCodes = [code]
    builder = flatbuffers.Builder(4096)
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(bytes(builder.Output()))


def file_entry(folder: Path, name: str) -> dict[str, Any]:
    """The manifest entry of a file called {stage}.{precision}.{format} that lies in `folder`."""
    stage, precision, file_format = name.split(".")
    tflite, quantized = file_format == "tflite", name.endswith("int8.tflite")
    shape = [1, HEIGHT, WIDTH, CHANNELS] if tflite else [-1, CHANNELS, HEIGHT, WIDTH]
    content = (folder / name).read_bytes()
    return {
        "name": name,
        "stage": stage,
        "path": name,
        "side_files": [],
        "format": file_format,
        "precision": precision,
        "size_bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "input": {
            "name": "image",
            "shape": shape,
            "layout": "NHWC" if tflite else "NCHW",
            "dtype": "int8" if quantized else "float32",
            "scale": INPUT_SCALE if quantized else None,
            "zero_point": INPUT_ZERO if quantized else None,
        },
        "output": {
            "name": "logits",
            "shape": [1 if tflite else -1, CLASSES],
            "dtype": "int8" if quantized else "float32",
            "scale": OUTPUT_SCALE if quantized else None,
            "zero_point": OUTPUT_ZERO if quantized else None,
        },
        "weight_bytes": {"int8": FEATURES * CLASSES, "int32": 4 * CLASSES},
        "activation_bytes": FEATURES + CLASSES,
        "float_layers": [],
    }


def write_folder(folder: Path, names: list[str], **changes: Any) -> Path:
    """A model folder with the named files; `changes` replace top-level manifest keys."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        write = write_tflite if name.endswith(".tflite") else write_onnx
        write(folder / name, quantized=".int8." in name)
    manifest = {
        "schema_version": 1,
        "board": {"id": "bench-board", "kind": "linux", "arch": "x86_64", "isa": [], "cores": 2},
        "budgets": {"file_size_mib": 1.0, "accuracy_drop_points": 1.0},
        "model": "linear",
        "classes": [f"class {index}" for index in range(CLASSES)],
        "input": {"channels": CHANNELS, "height": HEIGHT, "width": WIDTH},
        "preprocessing": {
            "resize": HEIGHT,
            "mean": MEAN,
            "std": STD,
            "scale": 1 / 255,
            "channel_order": "RGB",
        },
        "files": [file_entry(folder, name) for name in names],
        **changes,
    }
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return folder


def write_samples(path: Path, count: int = 120) -> dict[str, np.ndarray]:
    """Random images; labels are the float classifier's own answers for three images of four."""
    rng = np.random.default_rng(3)
    images = rng.integers(0, 256, (count, HEIGHT, WIDTH, CHANNELS), dtype=np.uint8)
    answers = logits(normalised(images)).argmax(axis=1)
    labels = np.where(np.arange(count) % 4 == 0, (answers + 1) % CLASSES, answers)
    arrays = {
        "images": images,
        "labels": labels,
        "predictions_baseline": labels,
        "predictions_slim": answers,
    }
    np.savez(path, **arrays)
    return arrays


def normalised(images: np.ndarray) -> np.ndarray:
    """uint8 [N, H, W, C] -> float32 [N, C, H, W], one pixel's formula written out in float64."""
    values = (images.astype(np.float64) / 255 - np.array(MEAN)) / np.array(STD)
    return np.moveaxis(values, -1, 1).astype(np.float32)
