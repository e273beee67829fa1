"""What each layer of a shipped file weighs, computes and takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runtime_bench import Measurement

PROFILED_RUNS = 30


@dataclass(frozen=True)
class Layer:
    """One convolution or linear layer.

    Attributes:
        name: path of the module where the file knows it, else the operator's.
        operator: its type in the file.
        size_bytes: of its constants: weight, bias, scales.
        macs: of one image; None where the shapes aren't known.
        time_ms: of one image; None where nothing tells it.
    """

    name: str
    operator: str
    size_bytes: int
    macs: int | None
    time_ms: float | None = None


@dataclass(frozen=True)
class FileLayers:
    """One file by its layers.

    Attributes:
        file: its name.
        layers: in the order in which they run.
        size_bytes: of the whole file; what no layer has is graph, names and other constants.
        time_ms: of all operators; None where it isn't known by layer.
        time_note: where the times come from, or why there are none.
    """

    file: str
    layers: tuple[Layer, ...]
    size_bytes: int
    time_ms: float | None
    time_note: str


def layers_of(bundle: Path, file: Measurement) -> FileLayers:
    """Take a file apart and time its operators on this machine."""
    path = bundle / file.path
    if file.format == "tflite":
        return _tflite(path, file)
    from compress_export.gate.onnx_layers import onnx_layers, profile_ms, with_times

    times_ms = profile_ms(path, threads=file.threads, runs=PROFILED_RUNS)
    return FileLayers(
        file.name,
        with_times(onnx_layers(path), times_ms),
        file.size_bytes,
        sum(times_ms.values()),
        f"onnxruntime's profile on this machine, {PROFILED_RUNS} runs, {file.threads} thread(s)",
    )


def _tflite(path: Path, file: Measurement) -> FileLayers:
    from compress_export.gate.tflite_layers import operator_times_ms, tflite_layers
    from runtime_bench import BenchError

    try:
        times_ms = operator_times_ms(path, threads=file.threads)
    except BenchError as error:
        note = f"by layer not known: {error}"
        return FileLayers(file.name, tflite_layers(path, None), file.size_bytes, None, note)
    note = f"of each operator by itself, LiteRT on this machine, {file.threads} thread(s)"
    layers = tflite_layers(path, times_ms)
    return FileLayers(file.name, layers, file.size_bytes, sum(times_ms), note)


def heaviest(layers: Sequence[Layer], *, by_time: bool) -> list[Layer]:
    """Sorted by time or by bytes, then by MACs, the largest first."""

    def weight(layer: Layer) -> tuple[float, float]:
        first = layer.time_ms if by_time else float(layer.size_bytes)
        return first or 0.0, float(layer.macs or 0)

    return sorted(layers, key=weight, reverse=True)
