"""Assertions on files that were read back. None of them trusts what the exporter meant to do."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from exporters.artifacts import Inspection
from exporters.errors import CheckError
from exporters.onnx_file import read_model, session_source
from exporters.raw_input import Normalisation

Runner = Callable[[np.ndarray], list[np.ndarray]]

FLOAT_TOLERANCE = 1e-3  # of the largest output; litert-torch and onnx are exact to about 1e-5
FLOAT16_TOLERANCE = 3e-2
# A file may be so many times as far from torch as torch is from exact arithmetic: runtimes make do
# with shorter polynomials for sigmoids and the like (EfficientNetV2-B0 with random values: 46 times
# in onnxruntime, 62 in LiteRT).
ROUNDINGS = 100
IO_DTYPES = {("tflite", "int8"): "int8", ("tflite", "int8-int16"): "int16"}  # others: float32
WEIGHT_DTYPES = {
    "int8": "int8",
    "int8-dynamic": "int8",  # uint8 in ONNX
    "int8-weights": "int8",
    "int4-weights": "int4",
    "int2-weights": "int2",
    "int8-int16": "int8",
}
SIDE_CHANNEL_BYTES = 1024  # padding values, constants of activations: not weights


def check_dtypes(
    name: str,
    found: Inspection,
    *,
    format: str,
    precision: str,
    raw_input: bool = False,
    left_in_float: bool = False,
) -> None:
    """Assert that input, output and weights have the dtypes that the precision promises.

    Args:
        raw_input: the file takes uint8 pixels.
        left_in_float: some layers were to stay float.

    Raises:
        CheckError: the file is something else than its name says.
    """
    io_dtype = IO_DTYPES.get((format, precision), "float32")
    if raw_input and (found.input.dtype, found.input.scale) != ("uint8", None):
        raise CheckError(f"{name}: the input is {found.input.dtype}, expected uint8 pixels")
    for tensor in found.outputs if raw_input else (found.input, *found.outputs):
        if tensor.dtype != io_dtype:
            raise CheckError(f"{name}: {tensor.name} is {tensor.dtype}, expected {io_dtype}")
        if io_dtype != "float32" and (tensor.scale is None or tensor.zero_point is None):
            raise CheckError(f"{name}: {tensor.name} is {io_dtype} without scale and zero point")
    bytes_of = found.weight_bytes
    if precision in WEIGHT_DTYPES:
        dtype = WEIGHT_DTYPES[precision]
        if (format, precision) == ("onnx", "int8-dynamic"):
            dtype = "uint8"
        if not bytes_of.get(dtype):
            raise CheckError(f"{name}: no {dtype} weights in an {precision} file")
        whole = io_dtype != "float32" and not left_in_float
        if whole and bytes_of.get("float32", 0) > SIDE_CHANNEL_BYTES:
            raise CheckError(f"{name}: {bytes_of['float32']} bytes of float32 constants")
    elif bytes_of.get(precision, 0) <= max(
        bytes_of.get(other, 0) for other in ("float32", "float16", "int8") if other != precision
    ):
        raise CheckError(f"{name}: weights are not {precision}, bytes by dtype are {bytes_of}")


def check_float_layers(name: str, found: Inspection, wanted: Collection[str]) -> None:
    """Assert that no weight stayed float in a TFLite file of integers but those that had to.

    Raises:
        CheckError: the quantizer left another layer as it was.
    """
    strange = [layer for layer in found.float_weights if layer not in wanted]
    if strange:
        raise CheckError(f"{name}: the weights of {', '.join(strange)} are float32")


def onnx_runner(
    path: Path, outputs: Sequence[str], raw_input: Normalisation | None = None
) -> Runner:
    """A function from float32 [b, C, H, W] to the named outputs, float32 [b, ...] each.

    Args:
        raw_input: what the file does itself; batches are turned back into pixels for it.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    # Beyond that level weights are copied into the layout of this machine's kernels.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    source = session_source(read_model(path), options)
    session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def run(batch: np.ndarray) -> list[np.ndarray]:
        given = batch if raw_input is None else raw_input.pixels(batch)
        found: list[np.ndarray] = session.run(list(outputs), {name: given})
        return found

    return run


def tflite_runner(
    path: Path, outputs: Sequence[str], raw_input: Normalisation | None = None
) -> Runner:
    """The same for a TFLite file, one image at a time; quantizes and dequantizes where needed."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path))
    interpreter.allocate_tensors()
    entry = interpreter.get_input_details()[0]
    details = {detail["name"]: detail for detail in interpreter.get_output_details()}
    results = [details[name] for name in outputs]

    def run(batch: np.ndarray) -> list[np.ndarray]:
        answers = []
        batch = batch if raw_input is None else raw_input.pixels(batch)
        for image in batch.transpose(0, 2, 3, 1):  # [b, C, H, W] -> [b, H, W, C]
            given = image[None] if raw_input else quantize(image[None], entry)
            interpreter.set_tensor(entry["index"], given)
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


@dataclass(frozen=True)
class Likeness:
    """How much a file's outputs are torch's, on the validation images.

    Attributes:
        agreement: share of the images with the same top-1 class; of a map [b, classes, ...] the
            share of its places, of several outputs the first one's. None of a single channel.
        error: root mean square of the difference of all outputs over that of torch's outputs.
    """

    agreement: float | None
    error: float


def likeness(
    name: str,
    run: Runner,
    batches: Callable[[], Iterator[np.ndarray]],
    expected: list[list[np.ndarray]],
    *,
    precision: str,
    rounding: Callable[[], float] = lambda: 0.0,
) -> Likeness:
    """Run a file on the validation images and compare its outputs with torch's.

    Args:
        expected: torch's outputs [b, ...] per batch of `batches`.
        rounding: how far torch's own float32 outputs are from exact ones, of the largest; asked
            only where a float file is further from torch's than most networks' are.

    Raises:
        CheckError: a float file whose outputs aren't torch's: it computes something else.
    """
    tolerance = {"float32": FLOAT_TOLERANCE, "float16": FLOAT16_TOLERANCE}.get(precision)
    same = count = 0
    wrong = size = 0.0
    for batch, wanted in zip(batches(), expected, strict=True):
        found = run(batch)
        for index, pair in enumerate(zip(found, wanted, strict=True)):
            where = name if len(found) == 1 else f"{name}, output {index}"
            _check_values(where, *pair, tolerance, rounding)
            wrong += float(np.square(pair[0] - pair[1], dtype=np.float64).sum())
            size += float(np.square(pair[1], dtype=np.float64).sum())
        classes = [values[0].reshape(*values[0].shape[:2], -1) for values in (found, wanted)]
        equal = classes[0].argmax(1) == classes[1].argmax(1)  # [b, places]
        same += int(equal.sum())
        count += equal.size
    single = expected[0][0].ndim < 2 or expected[0][0].shape[1] == 1
    return Likeness(None if single else same / count, float(np.sqrt(wrong / max(size, 1e-12))))


def difference(found: np.ndarray, wanted: np.ndarray) -> float:
    """The largest difference of two outputs, of the largest value wanted."""
    return float(np.abs(found - wanted).max() / max(float(np.abs(wanted).max()), 1e-6))


def _check_values(
    where: str,
    found: np.ndarray,
    wanted: np.ndarray,
    tolerance: float | None,
    rounding: Callable[[], float],
) -> None:
    if found.shape != wanted.shape or not np.isfinite(found).all():
        raise CheckError(f"{where}: logits {list(found.shape)}, or some not finite")
    worst = difference(found, wanted)
    if tolerance is None or worst <= tolerance:
        return
    allowed = max(tolerance, ROUNDINGS * rounding())
    if worst > allowed:
        raise CheckError(
            f"{where}: logits differ from torch's by {worst:.1e} of the largest, "
            f"{allowed:.0e} is allowed; the converter changed the model"
        )
