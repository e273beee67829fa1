"""Which operators of an INT8 file compute in floating point once its runtime has optimized it.

`float_layers` of the manifest counts convolutions and linear layers. What surrounds them (gates,
norms, softmax) costs time, too, and so does every way back from integers to float.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from exporters.inspect_onnx import optimized_onnx
from exporters.inspect_tflite import TfliteGraph

if TYPE_CHECKING:
    import onnx

CONVERSIONS = ("QuantizeLinear", "DequantizeLinear", "QUANTIZE", "DEQUANTIZE")
TO_INTEGERS = ("QuantizeLinear", "DynamicQuantizeLinear")
SHAPES = ("Shape", "Size", "NonZero", "ArgMax", "ArgMin")
COMPARISONS = ("Equal", "Greater", "Less", "GreaterOrEqual", "LessOrEqual", "Not", "And", "Or")
FLOATS = ("float16", "float32", "float64", "bfloat16")


def float_operators(path: Path) -> dict[str, int]:
    """Operators with a floating-point result by name, without the conversions to and from integers.

    The last linear layer of an ONNX file counts: its logits leave as float (a QGemm does its
    products on integers all the same and is left out).
    """
    counts = _onnx(path) if path.suffix == ".onnx" else _tflite(path)
    return dict(sorted(counts.items()))


def _tflite(path: Path) -> Counter[str]:
    graph = TfliteGraph(path)
    return Counter(
        graph.op_name(operator)
        for operator in graph.operators
        if graph.op_name(operator) not in CONVERSIONS
        and any(graph.dtype(int(index)) in FLOATS for index in operator.outputs)
    )


def _onnx(path: Path) -> Counter[str]:
    model = optimized_onnx(path)
    dtypes = _dtypes(model)
    return Counter(
        node.op_type
        for node in model.graph.node
        if node.op_type not in CONVERSIONS
        and not node.op_type.startswith("QGemm")
        and any(dtypes.get(name) == "float" for name in node.output)
    )


def _dtypes(model: onnx.ModelProto) -> dict[str, str]:
    """ "float" or "integer" for every tensor; onnxruntime's fused operators have no inference."""
    from onnx import TensorProto

    floats = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16}

    def kind(element_type: int) -> str:
        return "float" if element_type in floats else "integer"

    found = {c.name: kind(c.data_type) for c in model.graph.initializer}
    found |= {v.name: kind(v.type.tensor_type.elem_type) for v in model.graph.input}
    waiting = list(model.graph.node)  # in no particular order
    while waiting:
        later = []
        for node in waiting:
            result = _result(node, found, kind)
            if result is None:
                later.append(node)
            else:
                found.update(dict.fromkeys(node.output, result))
        if len(later) == len(waiting):
            break
        waiting = later
    return found


def _result(
    node: onnx.NodeProto, found: Mapping[str, str], kind: Callable[[int], str]
) -> str | None:
    """What a node makes; None while that depends on a tensor that isn't known yet."""
    attributes = {attribute.name: attribute for attribute in node.attribute}
    if node.op_type == "Constant":
        return kind(attributes["value"].t.data_type) if "value" in attributes else "integer"
    if node.op_type == "Cast":
        return kind(attributes["to"].i)
    if node.op_type == "DequantizeLinear":
        return "float"
    if node.op_type.startswith("QLinear") or node.op_type in (*TO_INTEGERS, *SHAPES, *COMPARISONS):
        return "integer"
    source = node.input[1 if node.op_type == "Where" else 0]  # Where begins with its condition
    return found.get(source)
