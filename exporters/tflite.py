"""TFLite files: float through litert-torch, then INT8 or float16 through ai-edge-quantizer.

All take NHWC images, batch 1: XNNPACK and microcontrollers want channels last, and a free batch
dimension would keep shapes from being known when memory is planned.
"""

from __future__ import annotations

import gc
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boards.parts import CalibrationMethod
from exporters.calibration import Calibration
from exporters.clipping import Grid
from exporters.float_layers import float_recipe, quotient_recipe
from exporters.model_outputs import SINGLE
from exporters.quiet import quiet_step
from exporters.tflite_calibration import quantizer_ranges, tflite_ranges
from exporters.tflite_large_kernels import large_kernels_rounded
from exporters.tflite_limits import within_limits
from exporters.tflite_pack import name_outputs_as, repack
from exporters.tflite_prelu import with_prelus_on_planes
from exporters.tflite_recipes import CONVOLUTIONS, static_recipe
from exporters.tflite_rewrites import rewritten_for_tflite

if TYPE_CHECKING:
    from ai_edge_quantizer.quantizer import Quantizer
    from torch import nn

    from boards import TfliteRules


def export_float_tflite(
    model: nn.Module,
    path: Path,
    *,
    input_shape: tuple[int, int, int],
    outputs: Sequence[str] = (SINGLE,),
) -> None:
    """Write `model` as a float32 TFLite file: [1, H, W, C] -> logits [1, classes].

    Args:
        model: as `prepare.deployable` returns it; takes NCHW.
        input_shape: (C, H, W).
        outputs: names, as `model_outputs.flatten_outputs` returns them. Their layout stays torch's.

    Raises:
        ExportError: litert-torch can't convert the model.
    """
    with quiet_step("export to TFLite"):
        import litert_torch
        import torch

        channels, height, width = input_shape
        ready = with_prelus_on_planes(model)
        channels_last = litert_torch.to_channel_last_io(ready, args=[0]).eval()
        example = torch.zeros(1, height, width, channels)
        with rewritten_for_tflite():
            litert_torch.convert(channels_last, (example,)).export(str(path))
        gc.collect()  # what it was converted through holds the weights twice
        repack(path, outputs=outputs)


def export_int8_tflite(
    float_path: Path,
    path: Path,
    *,
    calibration: Calibration,
    rules: TfliteRules,
    input_shape: tuple[int, int, int],
    method: CalibrationMethod = "minmax",
    activation_bits: int = 8,
    left: Sequence[str] = (),
) -> None:
    """Quantize a float TFLite file statically: int8 weights, integer activations, input and output.

    Ranges are found as for ONNX (the quantizer's own calibrator keeps a moving average, and holds
    the whole data set in memory).

    Args:
        method: how ranges are found, see `ranges.find_ranges`.
        activation_bits: 8 or 16; of 16 bits the zero point is 0 by any rules.
        left: layers that stay float, by name.

    Raises:
        CalibrationError: no usable samples.
        UnsupportedExportError: no layer of such a name.
        ExportError: ai-edge-quantizer failed.
    """
    with quiet_step("calibrate the TFLite model"):
        grid = Grid(activation_bits, rules.activation_symmetric or activation_bits == 16)
        found = tflite_ranges(float_path, calibration, input_shape, method, grid)
        ranges = quantizer_ranges(found)
    with quiet_step("quantize the TFLite model"):
        from ai_edge_quantizer import quantizer

        recipe = [
            *static_recipe(rules, activation_bits),
            *quotient_recipe(float_path),
            *float_recipe(float_path, left),
        ]
        source = within_limits(float_path, ranges, grid)
        _write_quantized(quantizer.Quantizer(source, recipe), path, ranges)
        if left:
            name_outputs_as(path, float_path)


def export_weights_tflite(
    float_path: Path, path: Path, recipe: list[dict[str, Any]], left: Sequence[str] = ()
) -> None:
    """Store weights as integers; activations, input and output stay float.

    Args:
        recipe: see `tflite_recipes`; `dynamic_recipe` or `weights_recipe`.
        left: layers that stay float, by name.

    Raises:
        ExportError: ai-edge-quantizer failed.
    """
    with quiet_step("quantize the weights of the TFLite model"):
        from ai_edge_quantizer import quantizer

        recipe = recipe + float_recipe(float_path, left)
        _write_quantized(quantizer.Quantizer(str(float_path), recipe), path)


def export_float16_tflite(float_path: Path, path: Path) -> None:
    """Store the weights of a float TFLite file as float16; input and output stay float32."""
    with quiet_step("convert the TFLite model to float16"):
        from ai_edge_quantizer import qtyping, quantizer

        job = quantizer.Quantizer(str(float_path))
        half = qtyping.TensorQuantizationConfig(num_bits=16, dtype=qtyping.TensorDataType.FLOAT)
        for operation in (*CONVOLUTIONS, "FULLY_CONNECTED"):
            job.update_quantization_recipe(
                ".*",
                qtyping.TFLOperationName[operation],
                qtyping.OpQuantizationConfig(
                    weight_tensor_config=half,
                    compute_precision=qtyping.ComputePrecision.FLOAT,
                    explicit_dequantize=True,
                ),
                quantizer.AlgorithmName.FLOAT_CASTING,
            )
        _write_quantized(job, path)


def _write_quantized(job: Quantizer, path: Path, *ranges: Any) -> None:
    with large_kernels_rounded():
        result = job.quantize(*ranges, enable_progress_report=False)
    path.write_bytes(result.quantized_model)
    del job, result  # they hold what `repack` reads once more
    repack(path)
