"""Ranges of the tensors of a float TFLite file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from boards.parts import CalibrationMethod
from exporters.calibration import Calibration
from exporters.clipping import Grid, Range
from exporters.inspect_tflite import TfliteGraph
from exporters.ranges import Tensors, find_ranges

THREADS = 2


def tflite_ranges(
    float_path: Path,
    calibration: Calibration,
    input_shape: tuple[int, ...],
    method: CalibrationMethod,
    grid: Grid,
) -> dict[str, Range]:
    """Return (low, high) of every float activation; those of the file's outputs are exact.

    Images run one at a time, as the file takes them.

    Raises:
        CalibrationError: no usable samples.
    """
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(
        str(float_path), num_threads=THREADS, experimental_preserve_all_tensors=True
    )
    interpreter.allocate_tensors()
    entry = interpreter.get_input_details()[0]["index"]
    constants = TfliteGraph(float_path).constants()

    def observe() -> Iterator[Tensors]:
        tensors: list[tuple[str, int]] = []
        for batch in calibration.checked(input_shape):
            for image in batch.transpose(0, 2, 3, 1):  # [b, C, H, W] -> [b, H, W, C]
                interpreter.set_tensor(entry, image[None])
                interpreter.invoke()
                tensors = tensors or _readable(interpreter, constants)
                yield [(name, interpreter.get_tensor(index)[None]) for name, index in tensors]

    outputs = [detail["name"] for detail in interpreter.get_output_details()]
    return find_ranges(observe, method, grid, exact=outputs)


def quantizer_ranges(ranges: dict[str, Range]) -> dict[str, dict[str, np.ndarray]]:
    """The same as ai-edge-quantizer wants them: {name: {"min": [], "max": []}}.

    No axis: it would add one for each of a constant's that is rounded with them.
    """
    return {
        name: {"min": np.array(low, np.float32), "max": np.array(high, np.float32)}
        for name, (low, high) in ranges.items()
    }


def _readable(interpreter: Any, constants: set[str]) -> list[tuple[str, int]]:
    """Float activations that hold values after a run; delegates leave some without."""
    found = []
    for detail in interpreter.get_tensor_details():
        if detail["dtype"] is not np.float32 or detail["name"] in constants:
            continue
        try:
            interpreter.get_tensor(detail["index"])
        except ValueError:
            continue
        found.append((detail["name"], detail["index"]))
    return found
