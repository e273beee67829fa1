"""Time many model files in one process, robustly on a busy machine.

Files take turns: in every round each one runs for a short burst. A burst is shorter than a
scheduler's time slice, so most of them pass undisturbed, and its median ignores the run that was
interrupted. What is made of a file's bursts is the caller's: the smallest median ignores the rounds
in which the machine was slow; two files compared round by round are disturbed alike.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from runtime_bench.runtimes import INTERPRETERS, import_runtime, runtime_version

if TYPE_CHECKING:
    Run = Callable[[], object]

_LEAST_RUNS = 3
_DTYPES = {
    "tensor(float)": np.float32,
    "tensor(int8)": np.int8,
    "tensor(uint8)": np.uint8,
}


@dataclass(frozen=True)
class Burst:
    """Some runs of one file right after each other.

    Attributes:
        median_ms, p90_ms: of one run; 90 % of the runs took at most the latter.
    """

    median_ms: float
    p90_ms: float


def runtime_name(file_format: str) -> str:
    """Name and version of the runtime that would run a format, e.g. "onnxruntime 1.31.1".

    Raises:
        RuntimeMissingError: none is installed.
    """
    return runtime_version(import_runtime(file_format, INTERPRETERS))


def time_in_bursts(
    paths: Sequence[Path],
    file_format: str,
    *,
    threads: int,
    rounds: int,
    burst_ms: float,
    progress: Callable[[int], None],
) -> list[list[Burst]]:
    """Return every file's bursts, one per round, in the order of the files.

    Every file stays loaded until the end. Inputs are noise of the files' own types, one image.

    Args:
        threads: of one operator.
        rounds: bursts of each file.
        burst_ms: about how long one burst lasts; at least three runs.
        progress: gets the number of bursts done, after each round.
    """
    load = {"onnx": _onnx_run, "tflite": _tflite_run}[file_format]
    runs = [load(path, threads) for path in paths]
    for run in runs:
        run()
    bursts: list[list[Burst]] = [[] for _ in runs]
    gc.disable()
    try:
        for number in range(rounds):
            order = range(len(runs)) if number % 2 == 0 else reversed(range(len(runs)))
            for index in order:
                bursts[index].append(_burst(runs[index], burst_ms))
            progress((number + 1) * len(runs))
    finally:
        gc.enable()
    return bursts


def _burst(run: Run, burst_ms: float) -> Burst:
    run()  # refills the caches after another file's turn
    times_ms: list[float] = []
    end = time.perf_counter_ns() + burst_ms * 1e6
    while len(times_ms) < _LEAST_RUNS or time.perf_counter_ns() < end:
        start = time.perf_counter_ns()
        run()
        times_ms.append((time.perf_counter_ns() - start) / 1e6)
    return Burst(statistics.median(times_ms), float(np.percentile(times_ms, 90)))


def _onnx_run(path: Path, threads: int) -> Run:
    onnxruntime = import_runtime("onnx")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors only
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    feed = {given.name: _noise(given.shape, _DTYPES[given.type]) for given in session.get_inputs()}
    names = [made.name for made in session.get_outputs()]
    return lambda: session.run(names, feed)


def _tflite_run(path: Path, threads: int) -> Run:
    module = import_runtime("tflite", INTERPRETERS)
    interpreter = module.Interpreter(model_path=str(path), num_threads=threads)
    interpreter.allocate_tensors()
    for given in interpreter.get_input_details():
        interpreter.set_tensor(given["index"], _noise(given["shape"], given["dtype"]))
    invoke: Run = interpreter.invoke
    return invoke


def _noise(shape: Sequence[int | str], dtype: Any) -> np.ndarray:
    generator = np.random.default_rng(0)
    # onnxruntime names a free dimension, which is the batch.
    sizes = tuple(1 if isinstance(size, str) else int(size) for size in shape)
    if dtype == np.float32:
        return generator.standard_normal(sizes).astype(np.float32)
    limits = np.iinfo(dtype)
    return generator.integers(limits.min, limits.max + 1, sizes, dtype)
