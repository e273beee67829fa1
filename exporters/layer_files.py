"""Model files of one layer, built in milliseconds and without torch, for timing at any width.

A file holds several copies of the layer side by side, all reading the same input, each with weights
of its own; values are random, since latency doesn't depend on them. Types, per-channel scales and
padding are those of the files that `export_files` writes for the same board.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from exporters.errors import UnsupportedExportError

if TYPE_CHECKING:
    from boards import Board

LayerKind = Literal["conv", "depthwise", "linear", "elementwise"]

INPUT_SCALE, OUTPUT_SCALE = 0.02, 0.04
"""Real values per step of 8-bit inputs and outputs; outputs of uniform inputs just fit."""


@dataclass(frozen=True)
class LayerSpec:
    """One layer at one width.

    Attributes:
        kind: "elementwise" is a chain of additions of two tensors.
        inputs, outputs: channels; equal for an elementwise layer.
        kernel, stride, padding, dilation: (height, width); 1, 1, 0, 1 without a kernel.
        input_size: (height, width); (1, 1) for a linear layer on one vector.
        groups: of a convolution; a depthwise one has as many as inputs, whatever stands here.
    """

    kind: LayerKind
    inputs: int
    outputs: int
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    input_size: tuple[int, int] = (1, 1)
    groups: int = 1

    def __post_init__(self) -> None:
        if min(self.inputs, self.outputs, *self.output_size) < 1:
            raise ValueError(f"{self} has nothing to compute")

    @property
    def is_conv(self) -> bool:
        return self.kind in ("conv", "depthwise")

    @property
    def conv_groups(self) -> int:
        """Groups as ONNX counts them."""
        return self.inputs if self.kind == "depthwise" else self.groups

    @property
    def output_size(self) -> tuple[int, int]:
        """(height, width) of the output."""
        return (self._output_along(0), self._output_along(1))

    def _output_along(self, axis: int) -> int:
        reach = self.dilation[axis] * (self.kernel[axis] - 1) + 1
        padded = self.input_size[axis] + 2 * self.padding[axis]
        return (padded - reach) // self.stride[axis] + 1

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """As torch and ONNX have it: (outputs, inputs per group, height, width)."""
        if self.kind == "linear":
            return (self.outputs, self.inputs)
        return (self.outputs, self.inputs // self.conv_groups, *self.kernel)


@dataclass(frozen=True)
class Weights:
    """Weights of one copy.

    Attributes:
        integers: int8, as `LayerSpec.weight_shape`.
        scales: real value per step, float32, one per output.
        biases: int32 at the scale INPUT_SCALE * scales, one per output.
    """

    integers: np.ndarray
    scales: np.ndarray
    biases: np.ndarray

    @property
    def real(self) -> np.ndarray:
        """float32 weights."""
        scales = self.scales.reshape(-1, *([1] * (self.integers.ndim - 1)))
        return self.integers.astype(np.float32) * scales

    @property
    def bias_scales(self) -> np.ndarray:
        return (self.scales * np.float32(INPUT_SCALE)).astype(np.float32)

    @property
    def real_biases(self) -> np.ndarray:
        return self.biases.astype(np.float32) * self.bias_scales


def random_weights(spec: LayerSpec, copy: int, per_channel: bool = True) -> Weights:
    """Weights that give outputs of about the inputs' size.

    Args:
        copy: number of the copy, which is the seed.
        per_channel: one scale per output; else all scales are equal.
    """
    generator = np.random.default_rng(copy)
    fan_in = math.prod(spec.weight_shape[1:])
    integers = generator.integers(-127, 128, spec.weight_shape, dtype=np.int8)
    scales = np.full(spec.outputs, math.sqrt(3 / fan_in) / 127, np.float32)
    if per_channel:
        scales *= generator.uniform(0.5, 1.0, spec.outputs).astype(np.float32)
    biases = generator.integers(-50, 51, spec.outputs, dtype=np.int32)
    return Weights(integers, scales, biases)


def layer_file(
    spec: LayerSpec, *, format: str, precision: str, board: Board, copies: int = 1, pools: int = 1
) -> bytes:
    """Return a file whose inputs and outputs have the arithmetic's own type.

    ONNX is NCHW, TFLite is NHWC. A convolution's outputs in ONNX end in pools that keep one pixel
    (channels of all copies side by side), so that a runtime's own layout need not be undone for
    whole tensors. Linear layers and TFLite give each copy's whole output; additions the last one's.

    Args:
        copies: of the layer.
        pools: of one pixel behind each copy of an ONNX convolution, to time the pool itself.

    Raises:
        UnsupportedExportError: the board has no such format or precision.
    """
    from exporters.layer_onnx import onnx_layer
    from exporters.layer_tflite import tflite_layer

    quantization = board.quantization
    rules = {"onnx": quantization.onnx, "tflite": quantization.tflite}
    if precision not in ("int8", "float32") or (precision == "int8" and rules[format] is None):
        raise UnsupportedExportError(
            f"board {board.id}: no layer files in {precision} {format}, only in int8 where the "
            "board has it, and in float32"
        )
    integer = precision == "int8"
    if format == "tflite":
        return tflite_layer(spec, copies, quantization.tflite if integer else None)
    return onnx_layer(
        spec,
        copies,
        pools,
        quantization.onnx if integer else None,
        board.onnx_opset_max,
        board.onnx_ir_max,
    )
