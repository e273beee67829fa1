"""TFLite files: float through litert-torch, then INT8 or float16 through ai-edge-quantizer.

All take NHWC images, batch 1: XNNPACK and microcontrollers want channels last, and a free batch
dimension would keep shapes from being known when memory is planned.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from exporters.calibration import Calibration, RangeTracker
from exporters.inspect_tflite import TfliteGraph
from exporters.model_outputs import SINGLE
from exporters.quiet import quiet_step
from exporters.tflite_pack import bounded_pads, repack

if TYPE_CHECKING:
    from torch import nn

CALIBRATION_THREADS = 2


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
        channels_last = litert_torch.to_channel_last_io(model, args=[0]).eval()
        example = torch.zeros(1, height, width, channels)
        litert_torch.convert(channels_last, (example,)).export(str(path))
        repack(path, outputs=outputs)


def export_int8_tflite(
    float_path: Path,
    path: Path,
    *,
    calibration: Calibration,
    per_channel_linear: bool,
    input_shape: tuple[int, int, int],
) -> None:
    """Quantize a float TFLite file statically: int8 weights, activations, input and output.

    Ranges are true minima and maxima, as for ONNX (the quantizer's own calibrator keeps a moving
    average, and holds the whole data set in memory).

    Raises:
        CalibrationError: no usable samples.
        ExportError: ai-edge-quantizer failed.
    """
    with quiet_step("calibrate the TFLite model"):
        ranges = _ranges(float_path, calibration, input_shape)
    with quiet_step("quantize the TFLite model"):
        from ai_edge_quantizer import qtyping, quantizer, recipe

        job = quantizer.Quantizer(bounded_pads(float_path, ranges), recipe.static_wi8_ai8())
        if not per_channel_linear:
            job.add_static_config(
                ".*",
                qtyping.TFLOperationName.FULLY_CONNECTED,
                activation_num_bits=8,
                weight_num_bits=8,
                weight_granularity=qtyping.QuantGranularity.TENSORWISE,
            )
        result = job.quantize(ranges, enable_progress_report=False)
        path.write_bytes(bytes(result.quantized_model))
        repack(path)


def export_float16_tflite(float_path: Path, path: Path) -> None:
    """Store the weights of a float TFLite file as float16; input and output stay float32."""
    with quiet_step("convert the TFLite model to float16"):
        from ai_edge_quantizer import qtyping, quantizer

        job = quantizer.Quantizer(str(float_path))
        half = qtyping.TensorQuantizationConfig(num_bits=16, dtype=qtyping.TensorDataType.FLOAT)
        for operation in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"):
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
        result = job.quantize(enable_progress_report=False)
        path.write_bytes(bytes(result.quantized_model))
        repack(path)


def _ranges(
    float_path: Path, calibration: Calibration, input_shape: tuple[int, ...]
) -> dict[str, dict[str, np.ndarray]]:
    """Range of every float tensor as {name: {"min": [1], "max": [1]}}, one image at a time."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(
        str(float_path),
        num_threads=CALIBRATION_THREADS,
        experimental_preserve_all_tensors=True,
    )
    interpreter.allocate_tensors()
    entry = interpreter.get_input_details()[0]["index"]
    tracker = RangeTracker()
    constants = TfliteGraph(float_path).constants()
    tensors: list[tuple[str, int]] = []
    for batch in calibration.checked(input_shape):
        for image in batch.transpose(0, 2, 3, 1):  # [b, C, H, W] -> [b, H, W, C]
            interpreter.set_tensor(entry, image[None])
            interpreter.invoke()
            tensors = tensors or _readable(interpreter, constants)
            for name, index in tensors:
                values = interpreter.get_tensor(index)
                if not np.isfinite(values).all():  # a border of -inf before a max pool
                    values = values[np.isfinite(values)]
                tracker.update(name, float(values.min()), float(values.max()))
    return {
        name: {
            "min": np.array([tracker.low[name]], np.float32),
            "max": np.array([tracker.high[name]], np.float32),
        }
        for name in tracker.low
    }


def _readable(interpreter: Any, constants: set[str]) -> list[tuple[str, int]]:
    """Float activations that hold values after a run; delegates leave some without."""
    found = []
    for detail in interpreter.get_tensor_details():
        if detail["dtype"] is not np.float32 or detail["name"] in constants:
            continue
        try:
            interpreter.get_tensor(detail["index"])
        except ValueError:
            continue
        found.append((detail["name"], detail["index"]))
    return found
