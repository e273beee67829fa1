"""Which profile a board's files keep to, derived from runtimes, rules and instruction sets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from exporters.errors import CheckError
from exporters.profiles import arm, edge_tpu, tensorrt, tflite_micro, x86
from exporters.profiles.profile import CheckedProfile, Profile

if TYPE_CHECKING:
    from boards import Board


def profile_for(board: Board, format: str) -> Profile:
    """The profile of the board's INT8 files in `format` ("onnx" or "tflite").

    An accelerator or a microcontroller comes before the CPU: its runtime is the one that refuses
    files.
    """
    runtimes = {runtime.name for runtime in board.runtimes}
    onnx, tflite = board.quantization.onnx, board.quantization.tflite
    per_channel_linear = tflite is not None and tflite.per_channel_linear
    if format == "onnx" and onnx is not None and onnx.profile == "tensorrt":
        return tensorrt.profile(onnx.weight_form)
    if format == "tflite" and "edgetpu" in runtimes:
        return edge_tpu.profile(per_channel_linear=per_channel_linear)
    if format == "tflite" and "tflite-micro" in runtimes:
        return tflite_micro.profile(per_channel_linear=per_channel_linear)
    cpu = x86 if board.cpu.arch == "x86_64" else arm
    return cpu.profile(format, board.cpu.isa)


def check_profile(path: Path, board: Board, format: str) -> CheckedProfile:
    """Read an INT8 file back and hold it to its board's profile.

    Raises:
        CheckError: all broken rules in one message.
    """
    profile = profile_for(board, format)
    broken = profile.violations(path)
    if broken:
        raise CheckError(f"{path.name} breaks the rules of {profile.name}: {'; '.join(broken)}")
    return CheckedProfile(profile.name, profile.benchable, tuple(profile.remarks(path)))
