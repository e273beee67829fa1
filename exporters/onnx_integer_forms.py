"""Float operators rewritten, before quantization, so that onnxruntime has integer kernels for them.

onnxruntime runs a HardSwish, a HardSigmoid or a lone BatchNormalization between pairs in float:
dequantize, compute, quantize again, four bytes per value on the way.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from exporters.onnx_qdq import Graph
from exporters.onnx_tidy import drop_unused_constants, tensor_ranks

if TYPE_CHECKING:
    import onnx

MOVERS = ("Expand", "Gather", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze")
HARD_SWISH_SLOPE = 1 / 6  # hard swish is x * HardSigmoid(x), with this slope and offset 0.5


def integer_forms(model: onnx.ModelProto) -> None:
    """Rewrite in place; float results stay the same up to rounding."""
    graph, ranks = Graph(model), tensor_ranks(model)
    rewrites = {
        "HardSigmoid": _hard_sigmoid,
        "HardSwish": _hard_swish,
        "BatchNormalization": _norm_as_convolution,
        "AveragePool": _pool_without_counted_pads,
    }
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        rewrite = rewrites.get(node.op_type)
        if node.op_type == "BatchNormalization" and ranks.get(node.input[0], 0) != 4:
            rewrite = None  # of vectors: a convolution needs an image
        nodes += rewrite(node, graph) if rewrite else [node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    _tell_apart(model.graph.node)
    drop_unused_constants(model)


def _tell_apart(nodes: Iterable[onnx.NodeProto]) -> None:
    """Number repeated names: a convolution may already be called what a norm's weight is."""
    taken: set[str] = set()
    for node in nodes:
        name, count = node.name, 1
        while node.name and node.name in taken:
            count += 1
            node.name = f"{name}_{count}"
        taken.add(node.name)


def _hard_sigmoid(node: onnx.NodeProto, graph: Graph) -> list[onnx.NodeProto]:
    """min(max(slope * x + offset, 0), 1): a product, a sum, and the limits of the 8-bit range."""
    attributes = {attribute.name: attribute.f for attribute in node.attribute}
    slope, offset = attributes.get("alpha", 0.2), attributes.get("beta", 0.5)
    return _clipped_line(node.input[0], node.output[0], slope, offset, graph)


def _hard_swish(node: onnx.NodeProto, graph: Graph) -> list[onnx.NodeProto]:
    from onnx import helper

    source, result = node.input[0], node.output[0]
    gate = f"{result}_gate"
    return [
        *_clipped_line(source, gate, HARD_SWISH_SLOPE, 0.5, graph),
        helper.make_node("Mul", [source, gate], [result], name=f"{result}_product"),
    ]


def _clipped_line(
    source: str, result: str, slope: float, offset: float, graph: Graph
) -> list[onnx.NodeProto]:
    from onnx import helper

    scaled, shifted = f"{result}_scaled", f"{result}_shifted"
    slope_name = graph.add_constant(f"{result}_slope", slope)
    offset_name = graph.add_constant(f"{result}_offset", offset)
    limits = [
        graph.add_constant(f"{result}_low", 0.0),
        graph.add_constant(f"{result}_high", 1.0),
    ]
    return [
        helper.make_node("Mul", [source, slope_name], [scaled], name=scaled),
        helper.make_node("Add", [scaled, offset_name], [shifted], name=shifted),
        helper.make_node("Clip", [shifted, *limits], [result], name=f"{result}_clipped"),
    ]


def _norm_as_convolution(node: onnx.NodeProto, graph: Graph) -> list[onnx.NodeProto]:
    """scale * (x - mean) / sqrt(variance + epsilon) + bias as a depthwise 1x1 convolution."""
    from onnx import helper

    parts = [graph.constants.get(name) for name in node.input[1:5]]
    if any(part is None for part in parts) or len(node.output) > 1:
        return [node]
    scale, bias, mean, variance = (np.asarray(part, np.float64) for part in parts)
    epsilon = next((a.f for a in node.attribute if a.name == "epsilon"), 1e-5)
    factor = scale / np.sqrt(variance + epsilon)
    layer = node.input[1].removesuffix(".weight")
    # Not after the layer: norms with equal scales share that constant.
    weight = graph.add_constant(f"{node.output[0]}.factor.weight", factor.reshape(-1, 1, 1, 1))
    offset = graph.add_constant(f"{node.output[0]}.factor.bias", bias - mean * factor)
    return [
        helper.make_node(
            "Conv",
            [node.input[0], weight, offset],
            [node.output[0]],
            name=layer,
            group=len(factor),
            kernel_shape=[1, 1],
        )
    ]


def _pool_without_counted_pads(node: onnx.NodeProto, graph: Graph) -> list[onnx.NodeProto]:
    """A pool with ceil_mode that counts pads: the same with its pads in an operator before it.

    onnxruntime's integer kernel divides the last windows, which reach beyond the image, by all of
    their places. With nothing to count it divides by those inside, as the definition has it.
    """
    from onnx import helper

    given = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    if not given.get("ceil_mode") or not given.get("count_include_pad"):
        return [node]
    pads = list(given.get("pads", ()))
    kept = {k: v for k, v in given.items() if k not in ("count_include_pad", "pads")}
    if not any(pads):
        return [helper.make_node("AveragePool", node.input, node.output, name=node.name, **kept)]
    half = len(pads) // 2
    amounts = np.array([0, 0, *pads[:half], 0, 0, *pads[half:]], np.int64)
    padded = f"{node.output[0]}_padded"
    widths = graph.add_constant(f"{padded}_widths", amounts)
    return [
        helper.make_node("Pad", [node.input[0], widths], [padded], name=padded),
        helper.make_node("AveragePool", [padded], node.output, name=node.name, **kept),
    ]


def whole_in_float(model: onnx.ModelProto) -> list[str]:
    """Names of the nodes that integers would harm.

    - Inside a GELU: quantized piece by piece it would go back and forth. Left alone, onnxruntime
      and TensorRT make one operator of x / 2 * (1 + erf(x / sqrt(2))).
    - The sum that keeps a divisor from zero (linear attention): in 8 bits a small one is zero.
    """
    graph = Graph(model)
    names = []
    for node in model.graph.node:
        if node.op_type == "Erf":
            names += _inside_gelu(graph, node)
        elif node.op_type == "Div":
            divisor = graph.producer.get(node.input[1])
            if divisor is not None and divisor.op_type == "Add":
                names.append(divisor.name)
    return names


def clips_off_zero(model: onnx.ModelProto) -> list[str]:
    """Names of the Clips whose limits don't have zero between them.

    onnxruntime's quantizer leaves a Clip to the range of the pair behind it, which has zero.
    """
    graph, names = Graph(model), []
    for node in model.graph.node:
        if node.op_type == "Clip":
            low, high = (graph.constants.get(n) for n in (*node.input[1:3], "", "")[:2])
            above = low is not None and float(low) > 0
            if above or (high is not None and float(high) < 0):
                names.append(node.name)
    return names


def moved_constants(model: onnx.ModelProto) -> list[str]:
    """Names of the nodes that only move a constant about; onnxruntime's quantizer refuses them."""
    graph = Graph(model)
    return [
        node.name
        for node in model.graph.node
        if node.op_type in MOVERS and node.input[0] in graph.constants
    ]


def _inside_gelu(graph: Graph, erf: onnx.NodeProto) -> list[str]:
    """The halving stands before, between or after the products, as the exporter likes."""
    scaled = graph.producer.get(erf.input[0])
    plus_one = graph.sole_consumer(erf.output[0])
    product = graph.sole_consumer(plus_one.output[0]) if plus_one else None
    if scaled is None or plus_one is None or product is None or product.op_type != "Mul":
        return []
    found, x = [scaled, erf, plus_one, product], scaled.input[0]
    other = next(name for name in product.input if name != plus_one.output[0])
    half = graph.source(other, "Mul")
    last = graph.sole_consumer(product.output[0])
    if half is not None and x in half.input:
        found.append(half)
    elif last is not None and last.op_type == "Mul":
        partners = {x} if other in graph.constants else set(graph.constants)
        if partners & set(last.input):
            found.append(last)
    return [node.name for node in found]
