"""The measuring process: `python -m runtime_bench.worker`, one model file per process, or many
small ones to compare.

Requests come as one JSON object per line on stdin, answers go as one per line to stdout:

    {"op": "load", "folder", "file", "threads", "arena", "runtime"}
                                                          -> runtime, RSS before and after the load
    {"op": "time", "runs", "warmup", "image_shape"}       -> times_ms, peak RSS so far
    {"op": "evaluate", "samples", "preprocessing"}        -> accuracy figures; {"done": n} meanwhile
    {"op": "arena", "folder", "file"}                     -> arena of TensorFlow Lite Micro
    {"op": "time_files", "paths", "format", "threads", "rounds", "burst_ms"}
                                                          -> bursts; {"done": n} meanwhile

A failure is answered with {"error", "missing_runtime"}. The process ends when stdin does.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, astuple
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from runtime_bench.errors import BenchError, RuntimeMissingError
from runtime_bench.manifest import RUNTIMES, ModelFile, Preprocessing
from runtime_bench.memory import peak_rss_bytes, rss_bytes
from runtime_bench.metrics import agreement, macro_precision_recall, top1
from runtime_bench.preprocess import normalise
from runtime_bench.runtimes import Runner, import_runtime, load_runner
from runtime_bench.samples import open_samples

if TYPE_CHECKING:
    Answer = dict[str, Any]
    Reply = Callable[[Answer], None]

EVALUATION_BATCH = 100
_EVALUATION_ACTIVATION_BYTES = 64 * 2**20
_REPORT_SECONDS = 1.0


class Worker:
    """The state between requests: the one loaded file."""

    def __init__(self, reply: Reply) -> None:
        self._reply = reply
        self._runner: Runner | None = None
        self._file: ModelFile | None = None

    def answer(self, request: Answer) -> Answer:
        """Carry out one request; any exception is the caller's to report."""
        handlers = {
            "load": self.load,
            "time": self.time,
            "evaluate": self.evaluate,
            "arena": self.arena,
            "time_files": self.time_files,
        }
        return handlers[request["op"]](request)

    def load(self, request: Answer) -> Answer:
        """Load the file; the runtime's library is imported before the first RSS reading."""
        file = ModelFile.from_json(request["file"], "request")
        path = Path(request["folder"]) / file.path
        wanted = request["runtime"] if request["runtime"] in RUNTIMES[file.format] else None
        import_runtime(file.format, () if wanted is None else (wanted,))
        before = rss_bytes()
        self._file = file
        self._runner = load_runner(path, file, request["threads"], request["arena"], wanted)
        return {
            "runtime": self._runner.runtime,
            "rss_before_load_bytes": before,
            "rss_after_load_bytes": rss_bytes(),
        }

    def time(self, request: Answer) -> Answer:
        """Time single images of noise: latency doesn't depend on what they show."""
        runner, _ = self._loaded()
        shape = (1, *request["image_shape"])
        native = runner.prepare(np.random.default_rng(0).standard_normal(shape).astype(np.float32))
        for _ in range(request["warmup"]):
            runner.invoke(native)
        times_ms = []
        gc.disable()
        try:
            for _ in range(request["runs"]):
                start = time.perf_counter_ns()
                runner.invoke(native)
                times_ms.append((time.perf_counter_ns() - start) / 1e6)
        finally:
            gc.enable()
        return {"times_ms": times_ms, "peak_rss_bytes": peak_rss_bytes()}

    def evaluate(self, request: Answer) -> Answer:
        """Top-1 and the rest over all samples, and the answers themselves."""
        runner, file = self._loaded()
        samples = open_samples(Path(request["samples"]))
        preprocessing = Preprocessing.from_json(request["preprocessing"], "request")
        start = reported = time.perf_counter()
        predictions = np.empty(len(samples), dtype=np.int64)
        done = 0
        for images in samples.batches(_batch_size(runner, file)):
            logits = runner.run(normalise(images, preprocessing))  # [b, classes]
            predictions[done : done + len(images)] = logits.argmax(axis=1)
            done += len(images)
            if time.perf_counter() - reported > _REPORT_SECONDS:
                reported = time.perf_counter()
                self._reply({"done": done})
        seconds = time.perf_counter() - start
        precision, recall = macro_precision_recall(samples.labels, predictions)
        torch_predictions = samples.predictions.get(file.stage)
        return {
            "top1": top1(samples.labels, predictions),
            "agreement": (
                None if torch_predictions is None else agreement(torch_predictions, predictions)
            ),
            "precision_macro": precision,
            "recall_macro": recall,
            "eval_seconds": seconds,
            "samples": len(samples),
            "predictions": predictions.tolist(),
        }

    def arena(self, request: Answer) -> Answer:
        """The memory that TensorFlow Lite Micro needs for a file, see `micro.Arena`."""
        from runtime_bench.micro import measure_arena

        file = ModelFile.from_json(request["file"], "request")
        return {"arena": asdict(measure_arena(Path(request["folder"]) / file.path))}

    def time_files(self, request: Answer) -> Answer:
        """Time many files side by side; they are gone again afterwards."""
        from runtime_bench.bursts import time_in_bursts

        files = time_in_bursts(
            [Path(path) for path in request["paths"]],
            request["format"],
            threads=request["threads"],
            rounds=request["rounds"],
            burst_ms=request["burst_ms"],
            progress=lambda done: self._reply({"done": done}),
        )
        return {"bursts": [[astuple(burst) for burst in bursts] for bursts in files]}

    def _loaded(self) -> tuple[Runner, ModelFile]:
        if self._runner is None or self._file is None:
            raise ValueError("nothing is loaded; send a load request first")
        return self._runner, self._file


def _batch_size(runner: Runner, file: ModelFile) -> int:
    """Up to 100 images at a time, fewer where their activations would fill a small board."""
    if not runner.free_batch:
        return 1
    fitting = _EVALUATION_ACTIVATION_BYTES // max(file.activation_bytes or 1, 1)
    return max(1, min(EVALUATION_BATCH, fitting))


def main() -> int:
    """Answer requests until stdin ends."""
    # Native libraries print to fd 1 as they please: give them stderr, keep stdout for answers.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def reply(answer: Answer) -> None:
        answers.write(json.dumps(answer) + "\n")
        answers.flush()

    worker = Worker(reply)
    for line in sys.stdin:
        try:
            answer = worker.answer(json.loads(line))
        except Exception as error:  # the other end turns it into a BenchError
            traceback.print_exc()
            answer = {
                "error": _one_line(error),
                "missing_runtime": isinstance(error, RuntimeMissingError),
            }
        reply(answer)
    return 0


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    # Our own messages are written for the user; others mean little without their type.
    return text if isinstance(error, BenchError) else f"{type(error).__name__}: {text}"


if __name__ == "__main__":
    sys.exit(main())
