"""Dynamic INT8 ONNX: integer weights, activations rounded as they come, layer by layer."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from exporters.float_layers import named_nodes
from exporters.onnx_file import read_model, write_model
from exporters.onnx_tidy import compact, strip_domains
from exporters.quiet import quiet_step

if TYPE_CHECKING:
    from boards import OnnxRules


_OF_GEMM = "_MatMul"
"""What onnxruntime appends to the name of a Gemm, which it takes apart beforehand."""


def export_dynamic_onnx(
    float_path: Path, path: Path, *, rules: OnnxRules, left: Sequence[str] = ()
) -> None:
    """Let layers compute on integers whose activation scale is found at every run.

    Weights are uint8: onnxruntime before 1.16 or so has ConvInteger for nothing else
    (microsoft/onnxruntime #12558, #15888).

    Args:
        left: layers that stay float, by name.

    Raises:
        ExportError: onnxruntime's quantizer failed.
    """
    with quiet_step("quantize the ONNX model dynamically"):
        import onnx
        from onnxruntime.quantization import QuantType, quantize_dynamic

        source = read_model(float_path)
        names = [node.name for node in named_nodes(source, left)]
        renamed = {name + suffix: name for name in names for suffix in ("", _OF_GEMM)}
        with tempfile.TemporaryDirectory() as folder:
            made = Path(folder) / "dynamic.onnx"
            quantize_dynamic(
                float_path,
                made,
                per_channel=rules.per_channel_conv,
                reduce_range=rules.reduce_range,
                weight_type=QuantType.QUInt8,
                nodes_to_exclude=list(renamed),
            )
            model = onnx.load(str(made))
        for node in model.graph.node:
            node.name = renamed.get(node.name, node.name)
        model.ir_version = source.ir_version
        model.producer_name = "compress-export"
        compact(model)
        strip_domains(model)
        write_model(model, path)
