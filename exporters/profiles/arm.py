"""Arm CPUs, with dot-product instructions and without.

Sources: onnxruntime, "Quantize ONNX models", section "Data type selection" (no saturation on Arm)
and its MLAS, platform.cpp: int8 weights with uint8 or int8 activations have kernels of their own,
for symmetric weights faster ones. For the gain without dot product: armnn issue 511, XNNPACK
issue 6653.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from exporters.profiles.onnx_rules import integer_violations, load_graph
from exporters.profiles.profile import Profile, nothing
from exporters.profiles.tflite_rules import litert_violations

DOT_PRODUCT_ISA = ("dotprod", "i8mm")


def profile(format: str, isa: Sequence[str]) -> Profile:
    """The profile of a CPU by its instruction sets, as descriptors name them."""
    has_dot_product = any(name in isa for name in DOT_PRODUCT_ISA)
    return Profile(
        "arm-dotprod" if has_dot_product else "arm-without-dotprod",
        litert_violations if format == "tflite" else onnx_violations,
        nothing if has_dot_product else slow_remarks,
    )


def onnx_violations(path: Path) -> list[str]:
    """Rules of an ONNX file for onnxruntime on Arm."""
    return list(integer_violations(load_graph(path)))


def slow_remarks(path: Path) -> list[str]:
    """Always one: the instructions that make INT8 fast are missing."""
    return ["the CPU has no dot-product instructions: INT8 saves bytes, little time"]
