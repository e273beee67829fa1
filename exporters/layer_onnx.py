"""One-layer ONNX files, in float or between Q/DQ pairs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from exporters.layer_files import INPUT_SCALE, OUTPUT_SCALE, LayerSpec, Weights, random_weights
from exporters.onnx_float import EXPORT_OPSET, PREFERRED_IR

if TYPE_CHECKING:
    from boards import OnnxRules


def onnx_layer(
    spec: LayerSpec,
    copies: int,
    pools: int,
    rules: OnnxRules | None,
    opset_max: int | None,
    ir_max: int | None,
) -> bytes:
    """Return the file; see `layer_files.layer_file`.

    Args:
        rules: of INT8 files; None for float32.
        opset_max, ir_max: the board's limits; None for no limit.
    """
    graph = _Graph(rules)
    if spec.is_conv:
        source = graph.add_input("x", (1, spec.inputs, *spec.input_size))
        pixels = [
            _one_pixel(graph, spec, copy, pools, _conv(graph, spec, copy, source))
            for copy in range(copies)
        ]
        graph.add_output(graph.add("Concat", "pixels", pixels, axis=1))
    elif spec.kind == "linear":
        source = graph.add_input("x", (spec.input_size[0], spec.inputs))
        for copy in range(copies):
            graph.add_output(_linear(graph, spec, copy, source))
    else:
        shape = (1, spec.inputs, *spec.input_size)
        last, other = graph.add_input("x", shape), graph.add_input("y", shape)
        for copy in range(copies):
            last = graph.add("Add", f"sum{copy}", [last, other])
        graph.add_output(last)
    opset = min(EXPORT_OPSET, opset_max or EXPORT_OPSET)
    return graph.serialized(opset, min(PREFERRED_IR, ir_max or PREFERRED_IR))


def _conv(graph: _Graph, spec: LayerSpec, copy: int, source: str) -> str:
    per_channel = graph.rules is None or graph.rules.per_channel_conv
    operands = graph.add_weights(copy, random_weights(spec, copy, per_channel), per_channel)
    return graph.add(
        "Conv",
        f"conv{copy}",
        [source, *operands],
        kernel_shape=spec.kernel,
        strides=spec.stride,
        pads=(*spec.padding, *spec.padding),
        dilations=spec.dilation,
        group=spec.conv_groups,
    )


def _linear(graph: _Graph, spec: LayerSpec, copy: int, source: str) -> str:
    per_channel = graph.rules is None or graph.rules.per_channel_linear
    operands = graph.add_weights(copy, random_weights(spec, copy, per_channel), per_channel)
    return graph.add("Gemm", f"linear{copy}", [source, *operands], transB=1)


def _one_pixel(graph: _Graph, spec: LayerSpec, copy: int, pools: int, name: str) -> str:
    """A pool of one pixel with the largest stride: runs in the layout of the convolution."""
    size = spec.output_size
    for pool in range(pools):
        label = f"pixel{copy}_{pool}"
        name = graph.add("MaxPool", label, [name], kernel_shape=(1, 1), strides=size)
        size = (1, 1)
    return name


class _Graph:
    """A graph under construction. Between its nodes stand float tensors, or Q/DQ pairs."""

    def __init__(self, rules: OnnxRules | None) -> None:
        self.rules = rules
        self._nodes: list[Any] = []
        self._constants: list[Any] = []
        self._inputs: list[Any] = []
        self._outputs: list[Any] = []
        if rules is not None:
            dtype = np.dtype(rules.activation_dtype)
            # uint8 is centred, so that both types stand for the same real values
            self._constant("zero_point", np.array(128 if dtype == np.uint8 else 0, dtype))
            self._constant("input_scale", np.array(INPUT_SCALE, np.float32))
            self._constant("output_scale", np.array(OUTPUT_SCALE, np.float32))

    def add_input(self, name: str, shape: tuple[int, ...]) -> str:
        """Declare an input, and return the tensor that nodes read."""
        from onnx import helper

        self._inputs.append(helper.make_tensor_value_info(name, self._type(), shape))
        return self._dequantized(name, "input_scale") if self.rules else name

    def add(self, op_type: str, name: str, operands: list[str], **attributes: Any) -> str:
        """Add a node, and the pair behind it; return the tensor that the next node reads."""
        self._node(op_type, operands, name, **attributes)
        if self.rules is None:
            return name
        self._node("QuantizeLinear", [name, "output_scale", "zero_point"], f"{name}_q")
        return self._dequantized(f"{name}_q", "output_scale")

    def add_weights(self, copy: int, weights: Weights, per_channel: bool) -> list[str]:
        """Add one copy's weight and bias, and return the tensors that its layer reads."""
        if self.rules is None:
            self._constant(f"w{copy}", weights.real)
            self._constant(f"b{copy}", weights.real_biases)
            return [f"w{copy}", f"b{copy}"]
        scales = weights.scales if per_channel else weights.scales[0]
        weight = self._stored(f"w{copy}", weights.integers, scales)
        if not self.rules.quantize_bias:
            self._constant(f"b{copy}", weights.real_biases)
            return [weight, f"b{copy}"]
        bias_scales = weights.bias_scales if per_channel else weights.bias_scales[0]
        return [weight, self._stored(f"b{copy}", weights.biases, bias_scales)]

    def add_output(self, name: str) -> None:
        """Declare what a node made as an output, in the arithmetic's own type."""
        from onnx import helper

        stored = name.removesuffix("_real")
        self._outputs.append(helper.make_tensor_value_info(stored, self._type(), None))

    def serialized(self, opset: int, ir_version: int) -> bytes:
        from onnx import helper

        declared = {output.name for output in self._outputs}
        # The DequantizeLinear behind an output has no reader.
        nodes = [
            node
            for node in self._nodes
            if node.op_type != "DequantizeLinear" or node.input[0] not in declared
        ]
        graph = helper.make_graph(
            nodes, "layer", self._inputs, self._outputs, initializer=self._constants
        )
        opsets = [helper.make_opsetid("", opset)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=ir_version)
        return model.SerializeToString()

    def _stored(self, name: str, integers: np.ndarray, scales: np.ndarray) -> str:
        self._constant(name, integers)
        self._constant(f"{name}_scale", np.asarray(scales, np.float32))
        self._constant(f"{name}_zero", np.zeros(np.shape(scales), integers.dtype))
        axis = {"axis": 0} if np.ndim(scales) else {}
        operands = [name, f"{name}_scale", f"{name}_zero"]
        self._node("DequantizeLinear", operands, f"{name}_real", **axis)
        return f"{name}_real"

    def _dequantized(self, name: str, scale: str) -> str:
        self._node("DequantizeLinear", [name, scale, "zero_point"], f"{name}_real")
        return f"{name}_real"

    def _node(self, op_type: str, operands: list[str], output: str, **attributes: Any) -> None:
        from onnx import helper

        self._nodes.append(helper.make_node(op_type, operands, [output], **attributes))

    def _constant(self, name: str, value: np.ndarray) -> None:
        from onnx import numpy_helper

        self._constants.append(numpy_helper.from_array(value, name))

    def _type(self) -> int:
        from onnx import TensorProto

        types = {None: TensorProto.FLOAT, "uint8": TensorProto.UINT8, "int8": TensorProto.INT8}
        return int(types[self.rules.activation_dtype if self.rules else None])
