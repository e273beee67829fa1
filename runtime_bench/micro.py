"""TensorFlow Lite Micro on this machine: answers, and the arena that a microcontroller has to give.

The Python package tflite-micro runs the library's reference kernels. Two things differ on the
microcontroller: its pointers have 4 bytes and not 8, so that the records at the arena's tail are
smaller there; and optimized kernels such as CMSIS-NN's ask for scratch memory, a few KiB, that the
reference kernels don't need.
"""

from __future__ import annotations

import faulthandler
import os
import re
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from runtime_bench.errors import BenchError
from runtime_bench.manifest import ModelFile
from runtime_bench.quantize import from_native, to_native
from runtime_bench.runtimes import all_real, expect_tflite, import_runtime, in_order
from runtime_bench.runtimes import runtime_version as version_of

if TYPE_CHECKING:
    from runtime_bench.quantize import AnyArray, FloatArray

ALIGNMENT = 16
"""Of the arena and of what lies in it, in bytes (tflite::MicroArenaBufferAlignment)."""

_REPORTED = re.compile(r"Arena allocation (total|head|tail) (\d+) bytes")
_LARGEST_BYTES = 2**30


@dataclass(frozen=True)
class Arena:
    """Memory of a file in TensorFlow Lite Micro's interpreter, in bytes.

    Attributes:
        head_bytes: activations and scratch memory, which operators share over time.
        tail_bytes: what lives as long as the interpreter: tensor and operator records.
        total_bytes: head and tail.
        smallest_bytes: the smallest arena in which the file can be loaded and run, found by
            bisection; a multiple of ALIGNMENT. Loading may need room that running doesn't.
        operators: by their names in the file, each once, in order of first use.
        runtime: name and version.
    """

    head_bytes: int
    tail_bytes: int
    total_bytes: int
    smallest_bytes: int
    operators: tuple[str, ...]
    runtime: str


class MicroRunner:
    """A TFLite file in TensorFlow Lite Micro's interpreter."""

    free_batch = False

    def __init__(self, path: Path, file: ModelFile, module: ModuleType) -> None:
        content = path.read_bytes()
        self.runtime = version_of(module)
        self._file = file
        self._interpreter = _interpreter(module, content, _ample_bytes(content))
        names = _output_names(module, content)
        made = [
            {**_details(self._interpreter.get_output_details(index)), "name": name, "index": index}
            for index, name in enumerate(names)
        ]
        made = in_order(made, file)
        given = _details(self._interpreter.get_input_details(0))
        for details, spec in ((given, file.input), *zip(made, file.outputs)):
            expect_tflite(spec, details)
        self._outputs = [int(details["index"]) for details in made]

    def prepare(self, batch: FloatArray) -> AnyArray:
        return to_native(batch, self._file.input)

    def invoke(self, native: AnyArray) -> AnyArray:
        return self._invoke_all(native)[0]

    def run(self, batch: FloatArray) -> FloatArray:
        return from_native(self.invoke(self.prepare(batch)), self._file.output)

    def run_all(self, batch: FloatArray) -> tuple[FloatArray, ...]:
        return all_real(self._invoke_all(self.prepare(batch)), self._file)

    def _invoke_all(self, native: AnyArray) -> list[AnyArray]:
        self._interpreter.set_input(native, 0)
        self._interpreter.invoke()
        return [np.asarray(self._interpreter.get_output(index)) for index in self._outputs]


def measure_arena(path: Path) -> Arena:
    """Load and run a file once, read what its arena holds, and find the smallest one.

    Raises:
        RuntimeMissingError: tflite-micro is not installed.
        BenchError: TensorFlow Lite Micro can't run the file.
    """
    module = import_runtime("tflite", ("tflite-micro",))
    content = path.read_bytes()
    interpreter = run_once(module, content, _ample_bytes(content))
    sizes = {name: int(size) for name, size in _REPORTED.findall(_printed(interpreter))}
    if set(sizes) != {"total", "head", "tail"}:
        raise BenchError(f"{version_of(module)} reports no arena; its text may have changed")

    def fits(size_bytes: int) -> bool:
        return _survives(lambda: run_once(module, content, size_bytes))

    return Arena(
        head_bytes=sizes["head"],
        tail_bytes=sizes["tail"],
        total_bytes=sizes["total"],
        smallest_bytes=smallest_arena(fits, sizes["total"]),
        operators=_operators(module, content),
        runtime=version_of(module),
    )


def smallest_arena(fits: Callable[[int], bool], guess_bytes: int) -> int:
    """The smallest multiple of ALIGNMENT that `fits`, by doubling from a guess and bisection.

    Raises:
        BenchError: 1 GiB doesn't fit.
    """
    low, high = 0, max(1, -(-guess_bytes // ALIGNMENT))  # low never fits, in units of ALIGNMENT
    while not fits(high * ALIGNMENT):
        low, high = high, 2 * high
        if high * ALIGNMENT > _LARGEST_BYTES:
            raise BenchError(f"no arena of up to {_LARGEST_BYTES} bytes is large enough")
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(middle * ALIGNMENT) else (middle, high)
    return high * ALIGNMENT


def _survives(attempt: Callable[[], object]) -> bool:
    """Whether an attempt succeeds in a copy of this process.

    An arena that is far too small is not refused: the library crashes.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            faulthandler.disable()  # a crash is an answer here
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # the library tells each failure
            attempt()
            code = 0
        finally:
            os._exit(code)  # no cleaning up: that is the parent's
    return os.waitpid(child, 0)[1] == 0


def run_once(module: ModuleType, content: bytes, arena_bytes: int) -> Any:
    """Return an interpreter with an arena of its own in which a file has answered zeros.

    Raises:
        BenchError: the file can't be loaded; where the arena is far too small the process may end.
    """
    interpreter = _interpreter(module, content, arena_bytes)
    given = interpreter.get_input_details(0)
    interpreter.set_input(np.zeros(given["shape"], given["dtype"]), 0)
    interpreter.invoke()
    return interpreter


def _interpreter(module: ModuleType, content: bytes, arena_bytes: int) -> Any:
    try:
        return module.Interpreter.from_bytes(content, arena_size=arena_bytes)
    except RuntimeError as error:
        raise BenchError(f"TensorFlow Lite Micro can't load it: {error}") from error


def _ample_bytes(content: bytes) -> int:
    return 16 * 2**20 + 10 * len(content)


def _printed(interpreter: Any) -> str:
    """What the library prints of its allocations, to file descriptor 2."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as stream:
        os.dup2(stream.fileno(), 2)
        try:
            interpreter.print_allocations()
        finally:
            os.dup2(kept, 2)
            os.close(kept)
        stream.seek(0)
        return stream.read().decode("utf-8", errors="replace")


def _details(details: dict[str, Any]) -> dict[str, Any]:
    """An interpreter's details in the form of TensorFlow Lite's."""
    grid = details["quantization_parameters"]
    pair = (grid["scales"][0], grid["zero_points"][0]) if len(grid["scales"]) else (0.0, 0)
    return {"dtype": details["dtype"], "shape": details["shape"], "quantization": pair}


def _output_names(module: ModuleType, content: bytes) -> list[str]:
    graph = module.convert_bytearray_to_object(content).subgraphs[0]
    return [graph.tensors[int(index)].name.decode() for index in graph.outputs]


def _operators(module: ModuleType, content: bytes) -> tuple[str, ...]:
    model = module.convert_bytearray_to_object(content)
    codes = [module.get_builtin_code_from_operator_code(code) for code in model.operatorCodes]
    names = {value: name for name, value in vars(module.schema_fb.BuiltinOperator).items()}
    used = [names[codes[operator.opcodeIndex]] for operator in model.subgraphs[0].operators]
    return tuple(dict.fromkeys(used))
