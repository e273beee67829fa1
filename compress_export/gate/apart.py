"""Model files are taken apart in a process of their own, with limits.

They may come from elsewhere. Their parsers and runtimes are C++, and a graph may ask for any memory
or never end; a process can be ended, and what it held is free again.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from compress_export.errors import UsageError
from compress_export.gate.layers import FileLayers, Layer, layers_of
from compress_export.shown import printable
from runtime_bench import BenchError
from runtime_bench.process import WorkerProcess

if TYPE_CHECKING:
    from runtime_bench import Measurement

_MOST_SECONDS = 120.0
_MOST_CPU_SECONDS = 600
_LEAST_MEMORY_BYTES = 8 * 2**30
"""Of addresses, most of which libraries reserve and never touch."""
_MEMORY_PER_BYTE = 8
_COMMAND = [sys.executable, "-P", "-m", "compress_export.gate.apart"]


def layers_apart(bundle: Path, file: Measurement) -> FileLayers:
    """Return `layers_of` a file.

    Raises:
        UsageError: it is damaged, not what its name says, or wants more than the limits.
    """
    path = bundle / file.path
    if not path.is_file() or bundle.resolve() not in path.resolve().parents:
        raise UsageError(f"--why: {path} is not there, or leads out of its folder")
    request = {"op": "take apart", "bundle": str(bundle.resolve()), "file": asdict(file)}
    try:
        with WorkerProcess(file.name, _MOST_SECONDS, _COMMAND) as worker:
            answer = worker.ask(request)
    except BenchError as error:
        raise UsageError(f"--why: {path} can't be taken apart: {error}") from None
    layers = tuple(
        Layer(
            **{**layer, "name": printable(layer["name"]), "operator": printable(layer["operator"])}
        )
        for layer in answer.pop("layers")
    )
    return FileLayers(layers=layers, **answer)


def main() -> None:
    """Answer one request of `layers_apart`."""
    # Native libraries print to fd 1 as they please: give them stderr, keep stdout for the answer.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    from exporters.onnx_file import side_files
    from runtime_bench import Measurement

    request = json.loads(sys.stdin.readline())
    bundle, file = Path(request["bundle"]), Measurement(**request["file"])
    path = bundle / file.path
    size_bytes = sum(part.stat().st_size for part in (path, *side_files(path)))
    most_bytes = _LEAST_MEMORY_BYTES + _MEMORY_PER_BYTE * size_bytes
    _limit(resource.RLIMIT_AS, most_bytes)
    _limit(resource.RLIMIT_CPU, _MOST_CPU_SECONDS)
    try:
        answer = asdict(layers_of(bundle, file))
    except Exception as error:  # the other end makes a UsageError of it
        reason = " ".join(str(error).split())[:300]
        answer = {"error": f"{type(error).__name__}: {reason}", "missing_runtime": False}
    answers.write(json.dumps(answer) + "\n")
    answers.flush()


def _limit(kind: int, most: int) -> None:
    """Lower a limit; one that is lower already stays."""
    _, hard = resource.getrlimit(kind)
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(kind, (most, hard))


if __name__ == "__main__":
    main()
