"""Assertions on files that were read back. None of them trusts what the exporter meant to do."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from exporters.artifacts import Inspection
from exporters.errors import CheckError
from exporters.onnx_qdq import Graph

if TYPE_CHECKING:
    import onnx

Runner = Callable[[np.ndarray], list[np.ndarray]]

STANDARD_DOMAINS = ("", "ai.onnx")
FLOAT_TOLERANCE = 1e-3  # of the largest output; litert-torch and onnx are exact to about 1e-5
FLOAT16_TOLERANCE = 3e-2
SIDE_CHANNEL_BYTES = 1024  # padding values, constants of activations: not weights


def check_dtypes(name: str, found: Inspection, *, format: str, precision: str) -> None:
    """Assert that input, output and weights have the dtypes that the precision promises.

    Raises:
        CheckError: the file is something else than its name says.
    """
    io_dtype = "int8" if (format, precision) == ("tflite", "int8") else "float32"
    for tensor in (found.input, *found.outputs):
        if tensor.dtype != io_dtype:
            raise CheckError(f"{name}: {tensor.name} is {tensor.dtype}, expected {io_dtype}")
        if io_dtype == "int8" and (tensor.scale is None or tensor.zero_point is None):
            raise CheckError(f"{name}: {tensor.name} is int8 without scale and zero point")
    bytes_of = found.weight_bytes
    if precision == "int8":
        if not bytes_of.get("int8"):
            raise CheckError(f"{name}: no int8 weights in an INT8 file")
        if format == "tflite" and bytes_of.get("float32", 0) > SIDE_CHANNEL_BYTES:
            raise CheckError(f"{name}: {bytes_of['float32']} bytes of float32 constants")
    elif bytes_of.get(precision, 0) <= max(
        bytes_of.get(other, 0) for other in ("float32", "float16", "int8") if other != precision
    ):
        raise CheckError(f"{name}: weights are not {precision}, bytes by dtype are {bytes_of}")


def check_tensorrt(path: Path) -> None:
    """Assert TensorRT's rules for explicit quantization on an ONNX file.

    Every zero point 0; every Q and DQ on int8; weights of convolutions stored as int8 with one
    scale per output channel (axis 0); no int32 bias behind a DequantizeLinear; Softmax in
    float; standard operator domains only.

    Raises:
        CheckError: all broken rules in one message.
    """
    import onnx

    model = onnx.load(str(path))
    broken = [*_domains(model), *_zero_points(model), *_weights(model), *_softmax(model)]
    if broken:
        raise CheckError(f"{path.name} breaks TensorRT's rules: {'; '.join(broken)}")


def _domains(model: onnx.ModelProto) -> Iterator[str]:
    foreign = {entry.domain for entry in model.opset_import} | {n.domain for n in model.graph.node}
    for domain in sorted(foreign - set(STANDARD_DOMAINS)):
        yield f"operator domain {domain}"


def _zero_points(model: onnx.ModelProto) -> Iterator[str]:
    graph = Graph(model)
    for node in model.graph.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        where = f"{node.op_type} -> {node.output[0]}"
        zero_point = graph.constants.get(node.input[2]) if len(node.input) > 2 else None
        if zero_point is None:
            yield f"{where} has no constant zero point"
        elif zero_point.dtype == np.int32:
            yield f"{where} has an int32 input (a quantized bias)"
        elif zero_point.dtype != np.int8:
            yield f"{where} is {zero_point.dtype}, not int8"
        elif zero_point.any():
            yield f"{where} has a zero point other than 0"


def _weights(model: onnx.ModelProto) -> Iterator[str]:
    from onnx import helper

    graph = Graph(model)
    for node in model.graph.node:
        if node.op_type not in ("Conv", "Gemm") or len(node.input) < 2:
            continue
        where = node.name or node.output[0]
        dequantize = graph.source(node.input[1], "DequantizeLinear")
        stored = graph.constants.get(dequantize.input[0]) if dequantize else None
        if dequantize is None or stored is None or stored.dtype != np.int8:
            yield f"weight of {where} is not stored as int8"
            continue
        if node.op_type != "Conv":
            continue
        axis = {a.name: helper.get_attribute_value(a) for a in dequantize.attribute}.get("axis", 1)
        scale = graph.constants[dequantize.input[1]]
        if axis != 0 or scale.shape != (stored.shape[0],):
            yield f"weight of {where} is not per-channel on axis 0"


def _softmax(model: onnx.ModelProto) -> Iterator[str]:
    graph = Graph(model)
    for node in model.graph.node:
        if node.op_type != "Softmax":
            continue
        readers = graph.consumers.get(node.output[0], [])
        if any(reader.op_type == "QuantizeLinear" for reader in readers):
            yield f"Softmax {node.name or node.output[0]} is quantized"


def onnx_runner(path: Path, outputs: Sequence[str]) -> Runner:
    """A function from float32 [b, C, H, W] to the named outputs, float32 [b, ...] each."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda batch: session.run(list(outputs), {name: batch})


def tflite_runner(path: Path, outputs: Sequence[str]) -> Runner:
    """The same for a TFLite file, one image at a time; quantizes and dequantizes where needed."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path))
    interpreter.allocate_tensors()
    entry = interpreter.get_input_details()[0]
    details = {detail["name"]: detail for detail in interpreter.get_output_details()}
    results = [details[name] for name in outputs]

    def run(batch: np.ndarray) -> list[np.ndarray]:
        answers = []
        for image in batch.transpose(0, 2, 3, 1):  # [b, C, H, W] -> [b, H, W, C]
            interpreter.set_tensor(entry["index"], quantize(image[None], entry))
            interpreter.invoke()
            answers.append([dequantize(interpreter.get_tensor(r["index"]), r)[0] for r in results])
        return [np.stack(values) for values in zip(*answers, strict=True)]

    return run


def quantize(values: np.ndarray, tensor: dict[str, Any]) -> np.ndarray:
    """Float values in the dtype of a TFLite tensor: q = round(x / scale) + zero point."""
    if tensor["dtype"] is np.float32:
        return values
    scale, zero_point = tensor["quantization"]
    limits = np.iinfo(tensor["dtype"])
    rounded = np.round(values / scale) + zero_point
    return np.clip(rounded, limits.min, limits.max).astype(tensor["dtype"])


def dequantize(values: np.ndarray, tensor: dict[str, Any]) -> np.ndarray:
    """Real values of a TFLite tensor: x = (q - zero point) * scale."""
    if tensor["dtype"] is np.float32:
        return values
    scale, zero_point = tensor["quantization"]
    return (values.astype(np.float32) - zero_point) * np.float32(scale)


def agreement(
    name: str,
    run: Runner,
    batches: Callable[[], Iterator[np.ndarray]],
    expected: list[list[np.ndarray]],
    *,
    precision: str,
) -> float:
    """Share of the validation images on which the file's top-1 class is torch's.

    Of a map [b, classes, ...] the share of its places; of several outputs the first one's.

    Args:
        expected: torch's outputs [b, ...] per batch of `batches`.

    Raises:
        CheckError: a float file whose outputs aren't torch's: it computes something else.
    """
    tolerance = {"float32": FLOAT_TOLERANCE, "float16": FLOAT16_TOLERANCE}.get(precision)
    same = count = 0
    for batch, wanted in zip(batches(), expected, strict=True):
        found = run(batch)
        for index, pair in enumerate(zip(found, wanted, strict=True)):
            _check_values(name if len(found) == 1 else f"{name}, output {index}", *pair, tolerance)
        classes = [values[0].reshape(*values[0].shape[:2], -1) for values in (found, wanted)]
        equal = classes[0].argmax(1) == classes[1].argmax(1)  # [b, places]
        same += int(equal.sum())
        count += equal.size
    return same / count


def _check_values(
    where: str, found: np.ndarray, wanted: np.ndarray, tolerance: float | None
) -> None:
    if found.shape != wanted.shape or not np.isfinite(found).all():
        raise CheckError(f"{where}: logits {list(found.shape)}, or some not finite")
    worst = float(np.abs(found - wanted).max() / max(float(np.abs(wanted).max()), 1e-6))
    if tolerance is not None and worst > tolerance:
        raise CheckError(
            f"{where}: logits differ from torch's by {worst:.1e} of the largest, "
            f"{tolerance:.0e} is allowed; the converter changed the model"
        )
