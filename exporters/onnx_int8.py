"""INT8 ONNX: static quantization with Q/DQ pairs, by the board's rules."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from boards.parts import CalibrationMethod
from exporters.calibration import Calibration
from exporters.clipping import Grid, Range
from exporters.float_layers import with_activations
from exporters.onnx_calibration import onnx_ranges
from exporters.onnx_extremes import put_weights_back, with_extremes
from exporters.onnx_file import read_model, scratch_file, write_model
from exporters.onnx_integer_forms import (
    clips_off_zero,
    integer_forms,
    moved_constants,
    whole_in_float,
)
from exporters.onnx_qdq import (
    clipped_tensors,
    place_for_float_kernels,
    place_for_onnxruntime,
    place_for_tensorrt,
)
from exporters.onnx_tidy import (
    LAYERS,
    compact,
    raise_opset,
    rename_ambiguous_constants,
    strip_domains,
)
from exporters.onnx_weights import channel_axis
from exporters.quiet import quiet_step

if TYPE_CHECKING:
    import onnx

    from boards import OnnxRules

SIXTEEN_BIT_OPSET = 21


def export_int8_onnx(
    float_path: Path,
    path: Path,
    *,
    calibration: Calibration,
    rules: OnnxRules,
    input_shape: tuple[int, int, int],
    method: CalibrationMethod = "minmax",
    activation_bits: int = 8,
    left: Sequence[str] = (),
) -> None:
    """Quantize a float ONNX file statically and write the file with int8 weights.

    Args:
        method: how ranges are found, see `ranges.find_ranges`.
        activation_bits: 8 or 16. Of 16 bits no runtime has integer kernels: pairs round, and the
            arithmetic between them is float, biases with it.
        left: layers that stay float, by name.

    Raises:
        CalibrationError: no usable samples.
        UnsupportedExportError: no layer of such a name.
        ExportError: onnxruntime's quantizer failed.
    """
    source = read_model(float_path)
    rename_ambiguous_constants(source)
    if activation_bits == 16:
        with quiet_step("raise the opset of the ONNX model"):
            source = raise_opset(source, SIXTEEN_BIT_OPSET)
    elif rules.profile == "onnxruntime":
        integer_forms(source)
    with quiet_step("calibrate the ONNX model"):
        grid = Grid(activation_bits, rules.activation_symmetric)
        ranges = onnx_ranges(source, calibration, input_shape, method, grid)
    with quiet_step("quantize the ONNX model"), scratch_file(path) as integers:
        model = _quantized(source, ranges, rules, activation_bits, left)
        put_weights_back(model, source, integers)
        clipped = clipped_tensors(source)
        if activation_bits == 16:
            place_for_float_kernels(model, clipped)
        elif rules.profile == "tensorrt":
            place_for_tensorrt(model, clipped)
        else:
            place_for_onnxruntime(model, clipped)
        compact(model)
        strip_domains(model)
        model.ir_version = source.ir_version
        model.producer_name = "compress-export"
        write_model(model, path)


def _quantized(
    source: onnx.ModelProto,
    ranges: dict[str, Range],
    rules: OnnxRules,
    activation_bits: int,
    left: Sequence[str],
) -> onnx.ModelProto:
    from onnx import shape_inference
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

    types = {"uint8": QuantType.QUInt8, "int8": QuantType.QInt8}
    wide = {"uint8": QuantType.QUInt16, "int8": QuantType.QInt16}
    activations = types if activation_bits == 8 else wide
    quantizer = QDQQuantizer(
        with_extremes(shape_inference.infer_shapes(source)),
        per_channel=rules.per_channel_conv or rules.per_channel_linear,
        reduce_range=rules.reduce_range,
        weight_qType=types[rules.weight_dtype],
        activation_qType=activations[rules.activation_dtype],
        tensors_range=_tensors_data(ranges, _widening(rules, activation_bits)),
        nodes_to_quantize=[],
        nodes_to_exclude=[
            *whole_in_float(source),
            *moved_constants(source),
            *clips_off_zero(source),
            *with_activations(source, left),
        ],
        op_types_to_quantize=sorted(
            ({*QLinearOpsRegistry, *QDQRegistry}) - set(rules.excluded_ops)
        ),
        extra_options={
            "ActivationSymmetric": rules.activation_symmetric,
            "WeightSymmetric": rules.weight_symmetric,
            "QuantizeBias": rules.quantize_bias and activation_bits == 8,
            "AddQDQPairToWeight": rules.weight_form == "float",
            "TensorQuantOverrides": _per_tensor_weights(source, rules, types[rules.weight_dtype]),
        },
    )
    quantizer.quantize_model()
    quantizer.model.topological_sort()
    return quantizer.model.model


def _widening(rules: OnnxRules, activation_bits: int) -> float:
    """What ranges are multiplied by so that the quantizer makes `Grid`'s scales of them.

    Zero of a symmetric range is at 128 of uint8, from where 127 steps reach to the end; but it
    divides the whole range by 255, as if there were 127.5 on either side.
    """
    if not rules.activation_symmetric or rules.activation_dtype == "int8":
        return 1.0
    grid = Grid(activation_bits, symmetric=True)
    return (grid.levels - 1) / grid.steps


def _tensors_data(ranges: dict[str, Range], widening: float) -> Any:
    """The same as onnxruntime's quantizer wants them."""
    from onnxruntime.quantization.calibrate import CalibrationMethod, TensorsData

    return TensorsData(
        CalibrationMethod.MinMax,
        {
            name: tuple(np.array([limit * widening], np.float32) for limit in (low, high))
            for name, (low, high) in ranges.items()
        },
    )


def _per_tensor_weights(
    source: onnx.ModelProto, rules: OnnxRules, weight_type: Any
) -> dict[str, list[dict[str, Any]]]:
    """Overrides for the layers with one scale for the whole weight, by `channel_axis`."""
    if not (rules.per_channel_conv or rules.per_channel_linear):
        return {}
    ranks = {constant.name: len(constant.dims) for constant in source.graph.initializer}
    return {
        node.input[1]: [{"quant_type": weight_type, "symmetric": rules.weight_symmetric}]
        for node in source.graph.node
        if node.op_type in LAYERS
        and node.input[1] in ranks
        and channel_axis(node, ranks[node.input[1]], rules) is None
    }
