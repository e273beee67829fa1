"""One-layer TFLite files, in float32 or INT8, written with the schema that ai-edge-litert ships."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from exporters.layer_files import INPUT_SCALE, OUTPUT_SCALE, LayerSpec, Weights, random_weights
from exporters.tflite_pack import pack

if TYPE_CHECKING:
    from boards import TfliteRules

# What the exporter writes: a version that every runtime with per-channel INT8 knows.
_VERSIONS = {"CONV_2D": 3, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 4, "ADD": 2, "PAD": 2}


def tflite_layer(spec: LayerSpec, copies: int, rules: TfliteRules | None) -> bytes:
    """Return the file; see `layer_files.layer_file`.

    Args:
        rules: of INT8 files; None for float32.
    """
    model = _Model(rules)
    if spec.is_conv:
        source = model.add_input((1, *spec.input_size, spec.inputs))
        for copy in range(copies):
            model.add_output(_conv(model, spec, copy, source))
    elif spec.kind == "linear":
        source = model.add_input((spec.input_size[0], spec.inputs))
        for copy in range(copies):
            model.add_output(_linear(model, spec, copy, source))
    else:
        shape = (1, *spec.input_size, spec.inputs)
        last, other = model.add_input(shape), model.add_input(shape)
        for _ in range(copies):
            last = _sum(model, last, other, shape)
        model.add_output(last)
    return model.serialized()


def _conv(model: _Model, spec: LayerSpec, copy: int, source: int) -> int:
    padded_by_layer = _is_same(spec) or not any(spec.padding)
    if not padded_by_layer:
        source = _pad(model, spec, source)
    per_channel = model.rules is None or model.rules.per_channel_conv
    weights = random_weights(spec, copy, per_channel)
    # torch (outputs, inputs per group, h, w) -> (outputs, h, w, inputs per group), or
    # (1, h, w, outputs) where the layer is depthwise
    order, channel_axis = ((1, 2, 3, 0), 3) if spec.kind == "depthwise" else ((0, 2, 3, 1), 0)
    stored = Weights(weights.integers.transpose(order), weights.scales, weights.biases)
    options = {
        "padding": model.schema.Padding.SAME if _is_same(spec) else model.schema.Padding.VALID,
        "strideH": spec.stride[0],
        "strideW": spec.stride[1],
        "dilationHFactor": spec.dilation[0],
        "dilationWFactor": spec.dilation[1],
    }
    name = "CONV_2D"
    if spec.kind == "depthwise":
        name, options["depthMultiplier"] = "DEPTHWISE_CONV_2D", spec.outputs // spec.inputs
    axis = channel_axis if per_channel else None
    operands = [source, *model.add_weights(stored, weights.real.transpose(order), axis)]
    return model.add(name, operands, (1, *spec.output_size, spec.outputs), options)


def _linear(model: _Model, spec: LayerSpec, copy: int, source: int) -> int:
    per_channel = model.rules is None or model.rules.per_channel_linear
    weights = random_weights(spec, copy, per_channel)
    operands = [source, *model.add_weights(weights, weights.real, 0 if per_channel else None)]
    return model.add("FULLY_CONNECTED", operands, (spec.input_size[0], spec.outputs), {})


def _sum(model: _Model, one: int, other: int, shape: tuple[int, ...]) -> int:
    return model.add("ADD", [one, other], shape, {})


def _pad(model: _Model, spec: LayerSpec, source: int) -> int:
    (height, width), (down, right) = spec.input_size, spec.padding
    amounts = np.array([[0, 0], [down, down], [right, right], [0, 0]], np.int32)
    shape = (1, height + 2 * down, width + 2 * right, spec.inputs)
    return model.add("PAD", [source, model.add_constant(amounts)], shape, {}, INPUT_SCALE)


def _is_same(spec: LayerSpec) -> bool:
    """Whether TFLite's SAME padding is the layer's: it pads the end first."""
    for axis in (0, 1):
        reach = spec.dilation[axis] * (spec.kernel[axis] - 1) + 1
        size, stride = spec.input_size[axis], spec.stride[axis]
        total = max((-(-size // stride) - 1) * stride + reach - size, 0)
        if total != 2 * spec.padding[axis]:
            return False
    return any(spec.padding)


class _Model:
    """A model under construction, one subgraph."""

    def __init__(self, rules: TfliteRules | None) -> None:
        from ai_edge_litert import schema_py_generated as schema

        self.schema: Any = schema
        self.rules = rules
        self._subgraph = schema.SubGraphT()
        self._subgraph.tensors, self._subgraph.operators = [], []
        self._subgraph.inputs, self._subgraph.outputs = [], []
        self._buffers = [schema.BufferT()]  # the first one stays empty by convention
        self._codes: list[Any] = []

    def add_input(self, shape: tuple[int, ...]) -> int:
        index = self._add_value(shape, INPUT_SCALE)
        self._subgraph.inputs.append(index)
        return index

    def add_output(self, index: int) -> None:
        self._subgraph.outputs.append(index)

    def add(
        self,
        name: str,
        operands: list[int],
        shape: tuple[int, ...],
        options: dict[str, Any],
        scale: float = OUTPUT_SCALE,
    ) -> int:
        """Add an operator, and return the index of its output."""
        schema = self.schema
        operator = schema.OperatorT()
        operator.opcodeIndex = self._code(name)
        operator.inputs, operator.outputs = operands, [self._add_value(shape, scale)]
        kind = _OPTIONS[name]
        operator.builtinOptionsType = getattr(schema.BuiltinOptions, kind)
        operator.builtinOptions = getattr(schema, f"{kind}T")()
        for key, value in options.items():
            setattr(operator.builtinOptions, key, value)
        self._subgraph.operators.append(operator)
        return int(operator.outputs[0])

    def add_weights(self, stored: Weights, real: np.ndarray, channel_axis: int | None) -> list[int]:
        """Add weight and bias.

        Args:
            channel_axis: axis of the weight that has a scale per channel; None for one scale.
        """
        if self.rules is None:
            return [self.add_constant(real), self.add_constant(stored.real_biases)]
        kept = slice(None) if channel_axis is not None else slice(1)
        axis = channel_axis or 0
        weight = self.add_constant(stored.integers, stored.scales[kept], axis)
        return [weight, self.add_constant(stored.biases, stored.bias_scales[kept], 0)]

    def add_constant(
        self, value: np.ndarray, scales: np.ndarray | None = None, axis: int = 0
    ) -> int:
        """Add a tensor with a value; quantized where it has scales."""
        buffer = self.schema.BufferT()
        buffer.data = np.ascontiguousarray(value).reshape(-1).view(np.uint8)
        self._buffers.append(buffer)
        quantization = None
        if scales is not None:
            quantization = self._quantization(scales, axis)
        return self._add_tensor(value.shape, value.dtype.name, quantization, len(self._buffers) - 1)

    def serialized(self) -> bytes:
        model = self.schema.ModelT()
        model.version, model.operatorCodes = 3, self._codes
        model.subgraphs, model.buffers = [self._subgraph], self._buffers
        return bytes(pack(model))

    def _add_value(self, shape: tuple[int, ...], scale: float) -> int:
        if self.rules is None:
            return self._add_tensor(shape, "float32", None, 0)
        scales = np.array([scale], np.float32)
        return self._add_tensor(shape, self.rules.io_dtype, self._quantization(scales, 0), 0)

    def _quantization(self, scales: np.ndarray, axis: int) -> Any:
        found = self.schema.QuantizationParametersT()
        found.scale = np.asarray(scales, np.float32)
        found.zeroPoint = np.zeros(len(scales), np.int64)
        found.quantizedDimension = axis
        return found

    def _add_tensor(
        self, shape: tuple[int, ...], dtype: str, quantization: Any, buffer: int
    ) -> int:
        tensor = self.schema.TensorT()
        tensor.shape = np.array(shape, np.int32)
        tensor.type = getattr(self.schema.TensorType, dtype.upper())
        tensor.quantization, tensor.buffer = quantization, buffer
        tensor.name = f"t{len(self._subgraph.tensors)}"
        self._subgraph.tensors.append(tensor)
        return len(self._subgraph.tensors) - 1

    def _code(self, name: str) -> int:
        number = getattr(self.schema.BuiltinOperator, name)
        for index, code in enumerate(self._codes):
            if code.builtinCode == number:
                return index
        code = self.schema.OperatorCodeT()
        code.builtinCode = code.deprecatedBuiltinCode = number
        code.version = _VERSIONS[name]
        self._codes.append(code)
        return len(self._codes) - 1


_OPTIONS = {
    "CONV_2D": "Conv2DOptions",
    "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions",
    "FULLY_CONNECTED": "FullyConnectedOptions",
    "ADD": "AddOptions",
    "PAD": "PadOptions",
}
