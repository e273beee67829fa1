"""float16 ONNX for boards without INT8: float16 weights and arithmetic, float32 in and out."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from exporters.onnx_file import (
    put_aside,
    read_model,
    row_slices,
    scratch_file,
    tensor_array,
    with_weights,
    without_weights,
    write_model,
)
from exporters.onnx_tidy import compact, strip_domains
from exporters.quiet import quiet_step


def export_fp16_onnx(float_path: Path, path: Path) -> None:
    """Convert a float32 ONNX file to float16, keeping float32 input and output.

    Raises:
        ExportError: the converter failed.
    """
    with quiet_step("convert the ONNX model to float16"), scratch_file(path) as file:
        from onnx import TensorProto
        from onnxruntime.quantization.onnx_model import ONNXModel
        from onnxruntime.transformers.float16 import convert_float_to_float16, convert_np_to_float16

        source = read_model(float_path)
        own = [value.name for value in (*source.graph.input, *source.graph.output)]
        converted = ONNXModel(convert_float_to_float16(without_weights(source), keep_io_types=own))
        converted.topological_sort()
        halved = {
            value.name
            for value in converted.model.graph.input
            if value.type.tensor_type.elem_type == TensorProto.FLOAT16
        }
        model = with_weights(converted.model, source)
        for tensor in model.graph.initializer:
            if tensor.name in halved:
                values = tensor_array(tensor)
                half = np.empty(values.shape, np.float16)
                for rows in row_slices(values):
                    half[rows] = convert_np_to_float16(values[rows])
                tensor.data_type = TensorProto.FLOAT16
                put_aside(tensor, half, file)
        compact(model)
        strip_domains(model)
        write_model(model, path)
