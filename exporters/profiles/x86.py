"""x86-64 CPUs, with VNNI and without.

Sources: onnxruntime, "Quantize ONNX models", sections "Data type selection" and "When to use
reduce-range and per-channel quantization?"; onnxruntime's MLAS, platform.cpp (which kernel is
taken) and qdq_transformer/qdq_s8_to_u8.cc; XNNPACK, src/qs8-qc8w-gemm, template MRx8c8-avx2.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from exporters.onnx_qdq import Graph
from exporters.profiles.onnx_rules import (
    integer_violations,
    largest,
    load_graph,
    stored_weights,
)
from exporters.profiles.profile import Profile
from exporters.profiles.tflite_rules import litert_violations

# One of these multiplies bytes and adds four products in 32 bits, so that nothing saturates.
DOT_PRODUCT_ISA = ("avx512_vnni", "avx_vnni", "amx_int8")

# VPMADDUBSW adds two products of a uint8 and an int8 in 16 bits: 2 x 255 x 64 = 32,640 fits below
# 32,767 and 2 x 255 x 65 = 33,150 doesn't.
LARGEST_WEIGHT = 64


def profile(format: str, isa: Sequence[str]) -> Profile:
    """The profile of a CPU by its instruction sets, as descriptors name them."""
    has_vnni = any(name in isa for name in DOT_PRODUCT_ISA)
    name = "x86-vnni" if has_vnni else "x86-without-vnni"
    if format == "tflite":
        # XNNPACK widens both sides to 16 bits where there is no VNNI: full-range weights are safe.
        return Profile(name, litert_violations)
    return Profile(name, vnni_violations if has_vnni else saturating_violations, remarks)


def vnni_violations(path: Path) -> list[str]:
    """Rules of an ONNX file for onnxruntime with VNNI."""
    return list(integer_violations(load_graph(path)))


def saturating_violations(path: Path) -> list[str]:
    """The same without VNNI, and no weight beyond +-64 (`reduce_range`).

    int8 activations are no way out: onnxruntime turns them into uint8 on x86 and multiplies with
    the same instruction. uint8 weights would be one, in another and slower kernel.
    """
    graph = load_graph(path)
    return [*integer_violations(graph), *_saturating(graph)]


def _saturating(graph: Graph) -> Iterator[str]:
    for weight in stored_weights(graph):
        reach = largest(weight.values)
        if weight.values.dtype == np.int8 and reach > LARGEST_WEIGHT:
            yield (
                f"weight of {weight.layer} reaches {reach}, beyond {LARGEST_WEIGHT} sums of two "
                "products saturate; set reduce_range"
            )


def remarks(path: Path) -> list[str]:
    """int8 activations: some are not turned into uint8, and their convolutions stay float.

    Measured with onnxruntime 1.31: half the convolutions of a ResNet-56.
    """
    graph = load_graph(path)
    zero_points = (
        graph.constants.get(node.input[2])
        for node in graph.model.graph.node
        if node.op_type == "QuantizeLinear" and len(node.input) > 2
    )
    if any(value is not None and value.dtype == np.int8 for value in zero_points):
        return ["int8 activations: onnxruntime on x86 leaves some convolutions in float"]
    return []
