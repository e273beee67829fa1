"""Contradictions between the parts of a descriptor.

Each rule names the top-level keys it needs and yields one clause per contradiction. A rule runs as
soon as its keys are valid, even if others are not, so one message can hold every mistake of a file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from string import Formatter
from typing import Any

from boards.parts import (
    Accelerator,
    Arch,
    Budgets,
    Cpu,
    Format,
    Kind,
    Memory,
    Precision,
    Quantization,
    Runtime,
    Storage,
)

RUNTIMES_BY_FORMAT: dict[str, tuple[str, ...]] = {
    "onnx": ("onnxruntime", "tensorrt"),
    "tflite": ("litert", "tflite-runtime", "tflite-micro", "edgetpu"),
}
ARCHES_BY_KIND: dict[str, tuple[Arch, ...]] = {
    "linux": ("x86_64", "aarch64"),
    "mcu": ("armv7e-m", "xtensa"),
}
STORED_BUDGETS = ("file_size_mib", "weights_mib")
MEMORY_BUDGETS = ("activation_memory_mib", "peak_rss_mib")

# Instructions that add four products of bytes in 32 bits; without them a pair is added in 16.
DOT_PRODUCT_ISA = ("avx512_vnni", "avx_vnni", "amx_int8")

Rule = Callable[..., Iterator[str]]


def _names_are_unique(id: str, aliases: Sequence[str]) -> Iterator[str]:
    for name in sorted({n for n in aliases if n == id or aliases.count(n) > 1}):
        yield f"aliases: {name!r} is named twice"


def _arch_fits_kind(kind: Kind, cpu: Cpu) -> Iterator[str]:
    allowed = ARCHES_BY_KIND[kind]
    if cpu.arch not in allowed:
        yield f"cpu.arch: {cpu.arch} does not go with kind {kind}; allowed: {', '.join(allowed)}"


def _mcu_limits(
    kind: Kind, formats: Sequence[Format], quantization: Quantization, budgets: Budgets
) -> Iterator[str]:
    if kind != "mcu":
        return
    if "onnx" in formats:
        yield "formats: an mcu has no ONNX runtime; use tflite alone"
    if quantization.onnx is not None:
        yield "quantization.onnx: an mcu has no ONNX runtime; leave the section out"
    if budgets.peak_rss_mib is not None:
        yield "budgets.peak_rss_mib: an mcu has no processes; use activation_memory_mib"


def _int8_rules_match_precisions(
    precisions: Sequence[Precision], formats: Sequence[Format], quantization: Quantization
) -> Iterator[str]:
    rules = {"onnx": quantization.onnx, "tflite": quantization.tflite}
    for name, rule in rules.items():
        if rule is not None and "int8" not in precisions:
            yield f"quantization.{name}: INT8 rules are given but precisions lack int8"
        if rule is None and name in formats and "int8" in precisions:
            yield f"quantization.{name}: missing, though precisions have int8 and formats {name}"


def _formats_have_a_runtime(
    formats: Sequence[Format], runtimes: Sequence[Runtime]
) -> Iterator[str]:
    present = {runtime.name for runtime in runtimes}
    for name in formats:
        if not present.intersection(RUNTIMES_BY_FORMAT[name]):
            able = " or ".join(RUNTIMES_BY_FORMAT[name])
            yield f"formats: {name} is listed but no runtime reads it; add {able} to runtimes"


def _runtimes_are_unique(runtimes: Sequence[Runtime]) -> Iterator[str]:
    names = [runtime.name for runtime in runtimes]
    for name in sorted({n for n in names if names.count(n) > 1}):
        yield f"runtimes: {name} is listed twice; keep the oldest min_version"


def _profile_matches_runtimes(
    quantization: Quantization, runtimes: Sequence[Runtime]
) -> Iterator[str]:
    if quantization.onnx is None:
        return
    has_tensorrt = any(runtime.name == "tensorrt" for runtime in runtimes)
    if (quantization.onnx.profile == "tensorrt") != has_tensorrt:
        yield (
            f"quantization.onnx.profile: {quantization.onnx.profile} does not go with runtimes "
            f"{'that include' if has_tensorrt else 'without'} tensorrt"
        )


def _weights_do_not_saturate(cpu: Cpu, quantization: Quantization) -> Iterator[str]:
    rules = quantization.onnx
    if cpu.arch != "x86_64" or rules is None or rules.profile == "tensorrt" or rules.reduce_range:
        return
    if not any(name in cpu.isa for name in DOT_PRODUCT_ISA):
        yield (
            "quantization.onnx.reduce_range: must be true where cpu.isa has none of "
            f"{', '.join(DOT_PRODUCT_ISA)}: sums of two 8-bit products saturate"
        )


def _budgets_fit(memory: Memory, storage: Storage, budgets: Budgets) -> Iterator[str]:
    limits = budgets.limits()
    for keys, name, usable_mib in (
        (STORED_BUDGETS, "storage", storage.usable_mib),
        (MEMORY_BUDGETS, "memory", memory.usable_mib),
    ):
        for key in keys:
            if limits.get(key, 0.0) > usable_mib:
                yield (
                    f"budgets.{key}: {limits[key]:g} is more than {name}.usable_mib {usable_mib:g}"
                )


def _steps_match_precisions(
    precisions: Sequence[Precision], channel_steps: Mapping[Precision, int]
) -> Iterator[str]:
    for name in precisions:
        if name not in channel_steps:
            yield f"channel_steps: {name} is missing, though precisions list it"
    for name in channel_steps:
        if name not in precisions:
            yield f"channel_steps: {name} has a step but precisions do not list it"


def _accelerator_precisions(
    precisions: Sequence[Precision], accelerator: Accelerator | None
) -> Iterator[str]:
    for name in accelerator.precisions if accelerator else ():
        if name not in precisions:
            yield f"accelerator.precisions: {name} is not among the board's precisions"


def _command_placeholders(formats: Sequence[Format], next_command: str) -> Iterator[str]:
    try:
        used = {field for _, field, _, _ in Formatter().parse(next_command) if field is not None}
    except ValueError as error:
        yield f"next_command: {error}; write literal braces as {{{{ and }}}}"
        return
    for field in sorted(used):
        if field not in RUNTIMES_BY_FORMAT:
            yield f"next_command: unknown placeholder {{{field}}}; allowed: {{onnx}}, {{tflite}}"
        elif field not in formats:
            yield f"next_command: {{{field}}} is used but formats do not list {field}"


RULES: tuple[tuple[tuple[str, ...], Rule], ...] = (
    (("id", "aliases"), _names_are_unique),
    (("kind", "cpu"), _arch_fits_kind),
    (("kind", "formats", "quantization", "budgets"), _mcu_limits),
    (("precisions", "formats", "quantization"), _int8_rules_match_precisions),
    (("formats", "runtimes"), _formats_have_a_runtime),
    (("runtimes",), _runtimes_are_unique),
    (("quantization", "runtimes"), _profile_matches_runtimes),
    (("cpu", "quantization"), _weights_do_not_saturate),
    (("memory", "storage", "budgets"), _budgets_fit),
    (("precisions", "channel_steps"), _steps_match_precisions),
    (("precisions", "accelerator"), _accelerator_precisions),
    (("formats", "next_command"), _command_placeholders),
)


def contradictions(parts: Mapping[str, Any]) -> Iterator[str]:
    """Every contradiction among the given parts.

    Args:
        parts: validated top-level values by key; a rule whose keys are not all here is skipped.
    """
    for keys, rule in RULES:
        if all(key in parts for key in keys):
            yield from rule(**{key: parts[key] for key in keys})
