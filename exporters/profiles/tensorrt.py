"""NVIDIA TensorRT, explicit quantization, weights in either of its two forms.

Sources: NVIDIA TensorRT documentation, "Explicit Quantization", section "Quantized Weights" (of
high precision behind Q and DQ, or stored as integers behind a DequantizeLinear); "Working with
Quantized Types", introduction (symmetric, scales only); developer guide, "Working with Quantized
Networks", on ranges: activations [-128, 127], weights [-127, 127], zero points 0 (read in a copy).
int32 biases: onnxruntime issue 14229, onnx-tensorrt issue 850; asymmetric activations: TensorRT
issues 2774 and 4698; Softmax: onnxruntime issue 14626.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from exporters.onnx_qdq import Graph
from exporters.profiles.onnx_rules import layer_name, load_graph, stored_weight
from exporters.profiles.profile import Profile

if TYPE_CHECKING:
    import onnx

STANDARD_DOMAINS = ("", "ai.onnx")
FORMS = {"integer": "stored as int8", "float": "a float constant behind a Q/DQ pair on int8"}


def profile(weight_form: str) -> Profile:
    """The profile for weights stored as "integer", or as "float" behind Q/DQ pairs."""
    return Profile("tensorrt", partial(violations, weight_form=weight_form), benchable=False)


def violations(path: Path, weight_form: str = "integer") -> list[str]:
    """TensorRT's rules for an ONNX file with Q/DQ pairs.

    Every zero point 0; every Q and DQ on int8; activations with one scale, weights of convolutions
    with one per output channel (axis 0), in [-127, 127] and in the wanted form; no int32 bias
    behind a DequantizeLinear; Softmax in float; standard operator domains only.
    """
    graph = load_graph(path)
    rules = (_domains(graph), _zero_points(graph), _weights(graph, weight_form), _softmax(graph))
    return [line for lines in rules for line in lines]


def _domains(graph: Graph) -> Iterator[str]:
    model = graph.model
    foreign = {entry.domain for entry in model.opset_import} | {n.domain for n in model.graph.node}
    for domain in sorted(foreign - set(STANDARD_DOMAINS)):
        yield f"operator domain {domain}"


def _zero_points(graph: Graph) -> Iterator[str]:
    for node in graph.model.graph.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        where = f"{node.op_type} -> {node.output[0]}"
        scale = graph.constants.get(node.input[1])
        zero_point = graph.constants.get(node.input[2]) if len(node.input) > 2 else None
        if zero_point is None:
            yield f"{where} has no constant zero point"
        elif zero_point.dtype == np.int32:
            yield f"{where} has an int32 input (a quantized bias)"
        elif zero_point.dtype != np.int8:
            yield f"{where} is {zero_point.dtype}, not int8"
        elif zero_point.any():
            yield f"{where} has a zero point other than 0"
        elif _is_activation(graph, node) and (scale is None or scale.size != 1):
            yield f"{where} is an activation with more than one scale"


def _is_activation(graph: Graph, node: onnx.NodeProto) -> bool:
    return node.op_type == "QuantizeLinear" and node.input[0] not in graph.constants


def _weights(graph: Graph, weight_form: str) -> Iterator[str]:
    for node in graph.model.graph.node:
        if node.op_type not in ("Conv", "Gemm") or len(node.input) < 2:
            continue
        where = f"weight of {layer_name(node)}"
        weight = stored_weight(graph, node)
        wrong_form = weight is None or weight.is_float != (weight_form == "float")
        if weight is None or wrong_form or weight.values.dtype != np.int8:
            yield f"{where} is not {FORMS[weight_form]}"
            continue
        if weight.values.min(initial=0) == -128:
            yield f"{where} holds -128"
        channels = (weight.values.shape[0],)
        if node.op_type == "Conv" and (weight.axis != 0 or weight.scale.shape != channels):
            yield f"{where} is not per-channel on axis 0"


def _softmax(graph: Graph) -> Iterator[str]:
    for node in graph.model.graph.node:
        if node.op_type != "Softmax":
            continue
        readers = graph.consumers.get(node.output[0], [])
        if any(reader.op_type == "QuantizeLinear" for reader in readers):
            yield f"Softmax {layer_name(node)} is quantized"
