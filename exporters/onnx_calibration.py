"""Ranges of the tensors of a float ONNX graph."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from boards.parts import CalibrationMethod
from exporters.calibration import Calibration
from exporters.clipping import Grid, Range
from exporters.onnx_file import session_source
from exporters.onnx_float import INPUT_NAME
from exporters.ranges import Tensors, find_ranges

if TYPE_CHECKING:
    import onnx

CHUNK_BYTES = 64 << 20  # of all tensors of the images that run at a time; one image may take more


def onnx_ranges(
    source: onnx.ModelProto,
    calibration: Calibration,
    input_shape: tuple[int, ...],
    method: CalibrationMethod,
    grid: Grid,
) -> dict[str, Range]:
    """Return (low, high) of every float activation; those of the graph's outputs are exact.

    Raises:
        CalibrationError: no usable samples.
    """
    names = _float_activations(source)
    session = _session(source, names)
    zero = np.zeros((1, *input_shape), np.float32)
    image_bytes = sum(v.nbytes for v in session.run(list(names), {INPUT_NAME: zero}))
    chunk = max(1, CHUNK_BYTES // image_bytes)

    def observe() -> Iterator[Tensors]:
        for batch in calibration.checked(input_shape):
            for start in range(0, len(batch), chunk):
                images = batch[start : start + chunk]
                found = session.run(list(names), {INPUT_NAME: images})
                yield [
                    (name, _by_image(values, len(images)))
                    for name, values in zip(names, found, strict=True)
                ]

    outputs = [output.name for output in source.graph.output]
    return find_ranges(observe, method, grid, exact=outputs)


def _by_image(values: np.ndarray, images: int) -> np.ndarray:
    """[images, ...]; what is the same for all of them counts as one image's."""
    return values if values.ndim and len(values) == images else values[None]


def _float_activations(source: onnx.ModelProto) -> tuple[str, ...]:
    """Every float tensor that nodes make or read, the input among them."""
    from onnx import TensorProto, shape_inference

    graph = shape_inference.infer_shapes(source).graph
    constants = {constant.name for constant in graph.initializer}
    return tuple(
        value.name
        for value in (*graph.input, *graph.value_info, *graph.output)
        if value.type.tensor_type.elem_type == TensorProto.FLOAT and value.name not in constants
    )


def _session(source: onnx.ModelProto, names: tuple[str, ...]) -> Any:
    """A session without optimization, in which `names` are all there is to be had."""
    import onnx
    import onnxruntime

    observed = onnx.ModelProto()
    observed.CopyFrom(source)
    del observed.graph.output[:]
    for name in names:
        value = onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
        observed.graph.output.append(value)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(
        session_source(observed, options), options, providers=["CPUExecutionProvider"]
    )
