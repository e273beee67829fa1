"""Dynamic INT8 ONNX: integer weights, activations rounded as they come, layer by layer."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from exporters.onnx_tidy import compact, strip_domains
from exporters.quiet import quiet_step

if TYPE_CHECKING:
    from boards import OnnxRules


def export_dynamic_onnx(float_path: Path, path: Path, *, rules: OnnxRules) -> None:
    """Let layers compute on integers whose activation scale is found at every run.

    Weights are uint8: onnxruntime before 1.16 or so has ConvInteger for nothing else
    (microsoft/onnxruntime #12558, #15888).

    Raises:
        ExportError: onnxruntime's quantizer failed.
    """
    with quiet_step("quantize the ONNX model dynamically"):
        import onnx
        from onnxruntime.quantization import QuantType, quantize_dynamic

        with tempfile.TemporaryDirectory() as folder:
            made = Path(folder) / "dynamic.onnx"
            quantize_dynamic(
                float_path,
                made,
                per_channel=rules.per_channel_conv,
                reduce_range=rules.reduce_range,
                weight_type=QuantType.QUInt8,
            )
            model = onnx.load(str(made))
        model.ir_version = onnx.load(str(float_path), load_external_data=False).ir_version
        model.producer_name = "compress-export"
        compact(model)
        strip_domains(model)
        onnx.checker.check_model(model, full_check=True)
        onnx.save(model, str(path))
