"""Other tools' INT8 files of the same float file, by their defaults, with the same samples.

- onnxruntime's `quantize_static` without options;
- NNCF's `nncf.quantize` without options, in an interpreter of its own (it wants other versions);
- ai-edge-quantizer's default recipe `static_wi8_ai8` with its own calibrator.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compressor.errors import InputError
from exporters import Exported
from exporters.artifacts import sha256_of
from exporters.inspect_onnx import inspect_onnx
from exporters.inspect_tflite import inspect_tflite
from exporters.quiet import quiet_step

CHILD = Path(__file__).with_name("nncf_child.py")
_LAST_WORDS = 400

Images = NDArray[np.float32]


@dataclass(frozen=True)
class Peer:
    """One other tool.

    Attributes:
        format: of its files.
        write: (float file, samples (N, 3, H, W) normalised, file to write) -> the tool's version.
    """

    format: str
    write: Callable[[Path, Images, Path], str]


def peers(nncf_python: Path | None) -> dict[str, Peer]:
    """Return the tools by name.

    Args:
        nncf_python: the interpreter that has NNCF; None leaves it out.
    """
    found = dict(_INSTALLED)
    if nncf_python is not None:
        found["nncf"] = Peer("onnx", lambda *paths: _nncf(nncf_python, *paths))
    return found


def described(path: Path, format: str, network: str) -> Exported:
    """Return what a bundle's manifest says of an INT8 file that we didn't write."""
    found = inspect_onnx(path) if format == "onnx" else inspect_tflite(path)
    return Exported(
        name=f"{network}.{path.name}",
        stage="baseline",
        path=path.name,
        side_files=(),
        format=format,
        precision="int8",
        size_bytes=path.stat().st_size,
        sha256=sha256_of(path),
        input=found.input,
        output=found.output,
        more_outputs=found.more_outputs,
        weight_bytes=found.weight_bytes,
        activation_bytes=found.activation_bytes,
        float_layers=found.float_layers,
        fused_integer_convs=found.fused_integer_convs,
        convs=found.convs,
        agreement_validation=0.0,  # nobody asks: the bench compares on test images
    )


def _onnxruntime(float_path: Path, samples: Images, path: Path) -> str:
    with quiet_step("quantize by onnxruntime's defaults"):
        import onnxruntime
        from onnxruntime.quantization import CalibrationDataReader, quantize_static

        class Reader(CalibrationDataReader):
            def __init__(self) -> None:
                self._rest: Iterator[dict[str, Any]] = iter([{"input": x[None]} for x in samples])

            def get_next(self) -> dict[str, Any] | None:
                return next(self._rest, None)

        quantize_static(str(float_path), str(path), Reader())
    return f"onnxruntime {onnxruntime.__version__}"


def _ai_edge(float_path: Path, samples: Images, path: Path) -> str:
    with quiet_step("quantize by ai-edge-quantizer's default recipe"):
        from importlib.metadata import version

        from ai_edge_quantizer import quantizer, recipe
        from ai_edge_quantizer.utils import tfl_interpreter_utils

        signature = tfl_interpreter_utils.DEFAULT_SIGNATURE_KEY
        interpreter = tfl_interpreter_utils.create_tfl_interpreter(str(float_path))
        name = next(iter(interpreter.get_signature_runner(signature).get_input_details()))
        data = [{name: x.transpose(1, 2, 0)[None]} for x in samples]  # [C, H, W] -> [1, H, W, C]
        job = quantizer.Quantizer(str(float_path), recipe.static_wi8_ai8())
        ranges = job.calibrate({signature: data})
        result = job.quantize(ranges, enable_progress_report=False)
        path.write_bytes(bytes(result.quantized_model))
    return f"ai-edge-quantizer {version('ai-edge-quantizer')}"


def _nncf(python: Path, float_path: Path, samples: Images, path: Path) -> str:
    """Raises InputError with its last words where the child fails."""
    with tempfile.TemporaryDirectory() as folder:
        array = Path(folder) / "samples.npy"
        np.save(array, samples)
        command = [str(python), str(CHILD), str(float_path), str(array), str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        words = " ".join(done.stderr.split())[-_LAST_WORDS:]
        raise InputError(f"--nncf-python {python}: ended with {done.returncode}: {words}")
    return done.stdout.strip().splitlines()[-1]


_INSTALLED: Mapping[str, Peer] = {
    "onnxruntime-default": Peer("onnx", _onnxruntime),
    "ai-edge-default": Peer("tflite", _ai_edge),
}
NAMES = (*_INSTALLED, "nncf")
