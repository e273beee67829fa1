"""One runner per runtime: load a file once, then run batches through it."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol

from runtime_bench.errors import BenchError, RuntimeMissingError
from runtime_bench.manifest import RUNTIMES, ModelFile, TensorSpec
from runtime_bench.quantize import from_native, real_values, to_native

if TYPE_CHECKING:
    from runtime_bench.quantize import AnyArray, FloatArray

_ONNX_DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(int8)": "int8",
    "tensor(uint8)": "uint8",
}
_MODULES = {
    "onnxruntime": "onnxruntime",
    "ai-edge-litert": "ai_edge_litert.interpreter",
    "tflite-runtime": "tflite_runtime.interpreter",
    "tflite-micro": "tflite_micro.python.tflite_micro.runtime",
}
INTERPRETERS = ("onnxruntime", "ai-edge-litert", "tflite-runtime")
"""Those that are fast enough to be timed on Linux; tflite-micro has reference kernels."""


class Runner(Protocol):
    """A loaded file. `run` is prepare, invoke and finish in one; latency times `invoke` alone.

    Attributes:
        runtime: name and version, e.g. "onnxruntime 1.31.1".
        free_batch: whether more than one image may go through at a time.
    """

    runtime: str
    free_batch: bool

    def prepare(self, batch: FloatArray) -> AnyArray:
        """Normalised float32 [b, C, H, W] -> the file's own layout and dtype."""

    def invoke(self, native: AnyArray) -> AnyArray:
        """The file's first output for its own input; all are computed and copied out."""

    def run(self, batch: FloatArray) -> FloatArray:
        """Normalised float32 [b, C, H, W] -> the first output as float32 [b, values]."""

    def run_all(self, batch: FloatArray) -> tuple[FloatArray, ...]:
        """Normalised float32 [b, C, H, W] -> every output as float32, in its own shape."""


class OnnxRunner:
    """An ONNX file in onnxruntime on the CPU."""

    def __init__(self, path: Path, file: ModelFile, threads: int, arena: bool = True) -> None:
        onnxruntime = import_runtime("onnx")
        self.runtime = runtime_version(onnxruntime)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.enable_cpu_mem_arena = arena
        options.log_severity_level = 3  # errors only
        self._session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
        self._file = file
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        if len(outputs) != len(file.outputs):
            _expect(file.output, "number of outputs beside", len(outputs), len(file.outputs))
        for tensor, spec in ((inputs[0], file.input), *zip(outputs, file.outputs)):
            dtype = _ONNX_DTYPES.get(tensor.type, tensor.type)
            _expect(spec, "name and dtype", (tensor.name, dtype), (spec.name, spec.dtype))
        batch = inputs[0].shape[0]
        self.free_batch = not isinstance(batch, int)
        _expect_batch(1 if self.free_batch else batch)

    def prepare(self, batch: FloatArray) -> AnyArray:
        return to_native(batch, self._file.input)

    def invoke(self, native: AnyArray) -> AnyArray:
        return self._invoke_all(native)[0]

    def run(self, batch: FloatArray) -> FloatArray:
        return from_native(self.invoke(self.prepare(batch)), self._file.output)

    def run_all(self, batch: FloatArray) -> tuple[FloatArray, ...]:
        return all_real(self._invoke_all(self.prepare(batch)), self._file)

    def _invoke_all(self, native: AnyArray) -> list[AnyArray]:
        feed = {self._file.input.name: native}
        # All of them: left out, an output might not be computed.
        outputs: list[AnyArray] = self._session.run([o.name for o in self._file.outputs], feed)
        return outputs


class TfliteRunner:
    """A TFLite file in ai-edge-litert, or in tflite-runtime where that is what the board has."""

    free_batch = False

    def __init__(self, path: Path, file: ModelFile, threads: int, module: ModuleType) -> None:
        self.runtime = runtime_version(module)
        self._interpreter = module.Interpreter(model_path=str(path), num_threads=threads)
        self._interpreter.allocate_tensors()
        self._file = file
        given = self._interpreter.get_input_details()[0]
        made = in_order(self._interpreter.get_output_details(), file)
        for details, spec in ((given, file.input), *zip(made, file.outputs)):
            expect_tflite(spec, details)
        self._input, self._outputs = given["index"], [details["index"] for details in made]

    def prepare(self, batch: FloatArray) -> AnyArray:
        return to_native(batch, self._file.input)

    def invoke(self, native: AnyArray) -> AnyArray:
        return self._invoke_all(native)[0]

    def run(self, batch: FloatArray) -> FloatArray:
        return from_native(self.invoke(self.prepare(batch)), self._file.output)

    def run_all(self, batch: FloatArray) -> tuple[FloatArray, ...]:
        return all_real(self._invoke_all(self.prepare(batch)), self._file)

    def _invoke_all(self, native: AnyArray) -> list[AnyArray]:
        self._interpreter.set_tensor(self._input, native)
        self._interpreter.invoke()
        return [self._interpreter.get_tensor(one) for one in self._outputs]


def load_runner(
    path: Path, file: ModelFile, threads: int, arena: bool = True, runtime: str | None = None
) -> Runner:
    """Load `file` from `path`.

    Args:
        threads: of one operator (intra-op); operators run one after another.
        arena: onnxruntime's CPU memory arena; ignored for TFLite.
        runtime: one of the names in `manifest.RUNTIMES`; None takes the first that is installed.

    Raises:
        RuntimeMissingError: no runtime for the format is installed.
        BenchError: the file is not what its manifest entry says.
    """
    if file.format == "onnx":
        return OnnxRunner(path, file, threads, arena)
    module = import_runtime(file.format, RUNTIMES["tflite"] if runtime is None else (runtime,))
    if module.__name__ == _MODULES["tflite-micro"]:
        from runtime_bench.micro import MicroRunner

        return MicroRunner(path, file, module)
    return TfliteRunner(path, file, threads, module)


def import_runtime(file_format: str, names: Sequence[str] = ()) -> Any:
    """The module that runs a format; RuntimeMissingError says what was tried and why it failed.

    Args:
        names: the runtimes to try, in this order; all of the format's where none is named.
    """
    failures = []
    for name in [n for n in RUNTIMES[file_format] if n in (names or RUNTIMES[file_format])]:
        try:
            return importlib.import_module(_MODULES[name])
        except ImportError as error:
            failures.append(f"{name}: {str(error).strip().splitlines()[-1]}")
    raise RuntimeMissingError(f"no {file_format} runtime can be imported ({'; '.join(failures)})")


def runtime_version(module: ModuleType) -> str:
    """Name and version of a runtime, given the module that `import_runtime` returned."""
    distribution = {home: name for name, home in _MODULES.items()}[module.__name__]
    version = getattr(importlib.import_module(module.__name__.partition(".")[0]), "__version__", "")
    if not version:
        from importlib import metadata  # takes long to import on a small board

        try:
            version = metadata.version(distribution)
        except metadata.PackageNotFoundError:
            return distribution
    return f"{distribution} {version}"


def all_real(natives: Sequence[AnyArray], file: ModelFile) -> tuple[FloatArray, ...]:
    """A file's own outputs as float32, in its order."""
    return tuple(real_values(*pair) for pair in zip(natives, file.outputs))


def in_order(details: list[dict[str, Any]], file: ModelFile) -> list[dict[str, Any]]:
    """Output details in the manifest's order; by name where there are several."""
    if len(details) != len(file.outputs):
        _expect(file.output, "number of outputs beside", len(details), len(file.outputs))
    if len(details) == 1:
        return details
    by_name = {str(detail["name"]): detail for detail in details}
    for spec in file.outputs:
        if spec.name not in by_name:
            _expect(spec, "name", sorted(by_name), spec.name)
    return [by_name[spec.name] for spec in file.outputs]


def expect_tflite(spec: TensorSpec, details: dict[str, Any]) -> None:
    """Compare an interpreter's details of a tensor (dtype, shape, quantization) with the manifest.

    Raises:
        BenchError: they differ, or the file takes more than one image at a time.
    """
    dtype = details["dtype"].__name__
    _expect(spec, "dtype", dtype, spec.dtype)
    shape = tuple(int(size) for size in details["shape"])
    _expect(spec, "shape", shape[1:], spec.shape[1:])
    if spec.layout:
        _expect_batch(shape[0])
    if spec.scale is not None:
        scale, zero_point = details["quantization"]
        if abs(float(scale) - spec.scale) > 1e-6 * spec.scale or zero_point != spec.zero_point:
            found, said = (float(scale), int(zero_point)), (spec.scale, spec.zero_point)
            _expect(spec, "scale and zero point", found, said)


def _expect(spec: TensorSpec, what: str, found: object, said: object) -> None:
    if found != said:
        raise BenchError(
            f"{what} of tensor '{spec.name}' is {found} in the file, {said} in the manifest"
        )


def _expect_batch(batch: int) -> None:
    if batch != 1:
        raise BenchError(f"the batch dimension is fixed at {batch}, not 1 or free")
