"""float16 ONNX for boards without INT8: float16 weights and arithmetic, float32 in and out."""

from __future__ import annotations

from pathlib import Path

from exporters.onnx_tidy import compact, strip_domains
from exporters.quiet import quiet_step


def export_fp16_onnx(float_path: Path, path: Path) -> None:
    """Convert a float32 ONNX file to float16, keeping float32 input and output.

    Raises:
        ExportError: the converter failed.
    """
    with quiet_step("convert the ONNX model to float16"):
        import onnx
        from onnxruntime.quantization.onnx_model import ONNXModel
        from onnxruntime.transformers.float16 import convert_float_to_float16

        source = onnx.load(str(float_path))
        converted = ONNXModel(convert_float_to_float16(source, keep_io_types=True))
        converted.topological_sort()
        model = converted.model
        compact(model)
        strip_domains(model)
        onnx.checker.check_model(model, full_check=True)
        onnx.save(model, str(path))
