"""Export a dense torch model to the files that a board runs, and read every file back."""

from __future__ import annotations

import copy
import gc
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from exporters import checks
from exporters.artifacts import (
    FORMATS,
    PRECISIONS,
    Exported,
    Inspection,
    SideFile,
    file_name,
    sha256_of,
)
from exporters.calibration import Calibration
from exporters.errors import ExportError, UnsupportedExportError
from exporters.inspect_onnx import inspect_onnx
from exporters.inspect_tflite import inspect_tflite
from exporters.mapped_weights import map_weights
from exporters.model_outputs import flatten_outputs
from exporters.onnx_dynamic import export_dynamic_onnx
from exporters.onnx_file import read_model, side_files, write_model
from exporters.onnx_float import export_float_onnx
from exporters.onnx_fp16 import export_fp16_onnx
from exporters.onnx_int8 import export_int8_onnx
from exporters.onnx_weights import export_weights_onnx
from exporters.prepare import deployable, plain_copy
from exporters.profiles.select import check_profile
from exporters.quiet import quiet_step
from exporters.raw_input import Normalisation, take_pixels
from exporters.support import (
    FLOATS,
    why_not,
    why_not_float_layers,
    why_not_pixels,
    why_too_large,
)
from exporters.tflite import (
    export_float16_tflite,
    export_float_tflite,
    export_int8_tflite,
    export_weights_tflite,
)
from exporters.tflite_recipes import dynamic_recipe, weights_recipe

if TYPE_CHECKING:
    from torch import nn

    from boards import Board

Batches = Callable[[], Iterator[np.ndarray]]

WEIGHT_BITS = {"int8-weights": 8, "int4-weights": 4, "int2-weights": 2}
EIGHT_BITS_OR_MORE = ("int8", "int8-dynamic", "int8-weights", "int8-int16")
STRIKING_ERROR = 0.3
"""Share of the outputs' size. A warning and no error: what it costs is measured afterwards."""
ACTIVATION_BITS = {"int8": 8, "int8-int16": 16}  # of static files


def export_files(
    model: nn.Module,
    *,
    stage: str,
    folder: Path,
    input_shape: tuple[int, int, int],
    calibration: Calibration,
    validation: Batches,
    board: Board,
    formats: Sequence[str],
    precisions: Sequence[str],
    progress: Callable[[str], None],
    raw_input: Normalisation | None = None,
    float_layers: Sequence[str] = (),
) -> tuple[Exported, ...]:
    """Write {stage}.{precision}.{format} for each wanted pair into `folder`, and check them.

    Args:
        model: any CNN from float32 [N, C, H, W] to logits [N, classes], or to maps, or to several
            outputs in a dict, tuple or list; it isn't changed, but that large weights of one on the
            CPU lie in files that are mapped from now on.
        stage: "baseline" or "slim".
        input_shape: (C, H, W).
        calibration: samples for INT8 ranges, the same for both formats.
        validation: starts a stream of float32 NCHW batches for the agreement with torch.
        progress: is told each step before it starts. While a step runs, stdout and stderr are
            captured, so nothing else should draw on the terminal from another thread.
        raw_input: files take uint8 pixels and normalise them so; calibration and validation are
            normalised all the same.
        float_layers: convolutions and linear layers that stay float in files of integers, by their
            names in the model once its branches are merged.

    Raises:
        ExportError: a tool failed; the message names the step.
        UnsupportedExportError: the board has no rules for a wanted format or precision, has nothing
            but integers for `float_layers`, the model no layer of such a name, or too many weights
            for a format.
        CheckError: a written file isn't what it should be.
    """
    _refuse_unsupported(board, formats, precisions)
    for format in formats:
        if (reason := why_too_large(model, format)) is not None:
            raise UnsupportedExportError(f"no {format} file of this network: {reason}")
        if float_layers and (reason := why_not_float_layers(board, format)) is not None:
            raise UnsupportedExportError(reason)
    if raw_input is not None and (reason := why_not_pixels(board)) is not None:
        raise UnsupportedExportError(reason)
    folder.mkdir(parents=True, exist_ok=True)
    if not precisions:
        return ()
    notices: list[str] = []
    with quiet_step("run the model in torch"):
        map_weights(model, folder)
        expected = _torch_outputs(model, input_shape, validation)
        clone = deployable(model, input_shape, notices.append)
        map_weights(clone, folder)
        outputs = flatten_outputs(clone, input_shape)
    for notice in notices:
        progress(notice)
    entries = []
    with tempfile.TemporaryDirectory(dir=folder, prefix=".") as scratch:
        job = _Job(
            clone,
            stage,
            folder,
            Path(scratch),
            input_shape,
            outputs,
            calibration,
            board,
            progress,
            raw_input,
            tuple(float_layers),
        )
        for format in [name for name in FORMATS if name in formats]:
            for precision in [name for name in PRECISIONS if name in precisions]:
                path = job.write(format, precision)
                entries.append(_read_back(path, job, format, precision, validation, expected))
    del clone, job
    gc.collect()  # the exporters' programs, which hold all weights, refer to themselves
    return tuple(entries)


@dataclass
class _Job:
    """What every step of one export shares. All others start from the float file."""

    model: nn.Module
    stage: str
    folder: Path
    scratch: Path
    input_shape: tuple[int, int, int]
    outputs: tuple[str, ...]
    calibration: Calibration
    board: Board
    progress: Callable[[str], None]
    raw_input: Normalisation | None
    float_layers: tuple[str, ...]
    float_paths: dict[str, Path] = field(default_factory=dict)

    def write(self, format: str, precision: str) -> Path:
        """Write one file into the folder and return its path."""
        path = self.folder / file_name(self.stage, precision, format)
        self.progress(f"{self.stage}: {precision} {format}")
        if precision == "float32" and self.raw_input is None:
            self._write_float(format, path)
            return path
        source = self._float_source(format)
        if precision == "float32":
            _copy(source, path)  # the others start from a source without pixels
        elif precision == "float16":
            (export_fp16_onnx if format == "onnx" else export_float16_tflite)(source, path)
        elif format == "onnx":
            self._write_integer_onnx(source, path, precision)
        else:
            self._write_integer_tflite(source, path, precision)
        return path

    def _write_integer_onnx(self, source: Path, path: Path, precision: str) -> None:
        rules = self.board.quantization.onnx
        if precision in WEIGHT_BITS:
            export_weights_onnx(
                source, path, bits=WEIGHT_BITS[precision], rules=rules, left=self.float_layers
            )
            return
        assert rules is not None  # `support.why_not` has seen to that
        if precision == "int8-dynamic":
            export_dynamic_onnx(source, path, rules=rules, left=self.float_layers)
            return
        export_int8_onnx(
            source,
            path,
            calibration=self.calibration,
            rules=rules,
            input_shape=self.input_shape,
            method=self.board.quantization.calibration,
            activation_bits=ACTIVATION_BITS[precision],
            left=self.float_layers,
        )

    def _write_integer_tflite(self, source: Path, path: Path, precision: str) -> None:
        rules = self.board.quantization.tflite
        if precision in WEIGHT_BITS:
            recipe = weights_recipe(rules, WEIGHT_BITS[precision])
            export_weights_tflite(source, path, recipe, left=self.float_layers)
            return
        assert rules is not None  # `support.why_not` has seen to that
        if precision == "int8-dynamic":
            export_weights_tflite(source, path, dynamic_recipe(rules), left=self.float_layers)
            return
        export_int8_tflite(
            source,
            path,
            calibration=self.calibration,
            rules=rules,
            input_shape=self.input_shape,
            method=self.board.quantization.calibration,
            activation_bits=ACTIVATION_BITS[precision],
            left=self.float_layers,
        )

    def _float_source(self, format: str) -> Path:
        """The float file to start from; made aside where it isn't itself wanted."""
        if format not in self.float_paths:
            self._write_float(format, self.scratch / file_name(self.stage, "float32", format))
        return self.float_paths[format]

    def _write_float(self, format: str, path: Path) -> None:
        if format == "onnx":
            export_float_onnx(
                self.model,
                path,
                input_shape=self.input_shape,
                outputs=self.outputs,
                opset_max=self.board.onnx_opset_max,
                ir_max=self.board.onnx_ir_max,
                progress=self.progress,
            )
        else:
            export_float_tflite(
                self.model, path, input_shape=self.input_shape, outputs=self.outputs
            )
        self.float_paths[format] = path


def _copy(source: Path, path: Path) -> None:
    if source.suffix == ".onnx":
        write_model(read_model(source), path)  # with its side file
    else:
        shutil.copyfile(source, path)


def _refuse_unsupported(board: Board, formats: Sequence[str], precisions: Sequence[str]) -> None:
    for kind, wanted, known in (
        ("format", formats, FORMATS),
        ("precision", precisions, PRECISIONS),
    ):
        for name in wanted:
            if name not in known:
                raise UnsupportedExportError(f"{kind} {name!r} is none of {', '.join(known)}")
    for format in formats:
        for precision in precisions:
            reason = why_not(board, format, precision)
            if reason is not None:
                raise UnsupportedExportError(reason)


def _torch_outputs(
    model: nn.Module, input_shape: tuple[int, int, int], validation: Batches
) -> list[list[np.ndarray]]:
    """All outputs [b, ...] of each validation batch, of the network as it came."""
    plain = plain_copy(model)
    flatten_outputs(plain, input_shape)
    found = [_outputs(plain, batch) for batch in validation()]
    if not found:
        raise ExportError("no validation images to compare the files with torch on")
    return found


def _outputs(model: nn.Module, batch: np.ndarray) -> list[np.ndarray]:
    import torch

    with torch.inference_mode():
        outputs = model(torch.from_numpy(batch))
    several = outputs if isinstance(outputs, tuple) else (outputs,)
    return [output.numpy() for output in several]


def _rounding(model: nn.Module, batch: np.ndarray) -> float:
    """How far float32 outputs are from float64's; 0 where a network computes in float32 alone."""
    try:
        exact = _outputs(copy.deepcopy(model).double(), batch.astype(np.float64))
    except RuntimeError:
        return 0.0
    return max(checks.difference(*pair) for pair in zip(_outputs(model, batch), exact, strict=True))


def _read_back(
    path: Path,
    job: _Job,
    format: str,
    precision: str,
    validation: Batches,
    expected: list[list[np.ndarray]],
) -> Exported:
    """Inspect and check one file; its manifest entry."""
    profile = check_profile(path, job.board, format) if precision == "int8" else None
    if job.raw_input is not None:
        take_pixels(path, job.raw_input)
    found = _inspect(path, job, format, precision)
    checks.check_dtypes(
        path.name,
        found,
        format=format,
        precision=precision,
        raw_input=job.raw_input is not None,
        left_in_float=bool(job.float_layers),
    )
    if format == "tflite" and precision == "int8":
        checks.check_float_layers(path.name, found, job.float_layers)
    with quiet_step(f"compare {path.name} with torch"):
        runner = checks.onnx_runner if format == "onnx" else checks.tflite_runner
        run = runner(path, job.outputs, job.raw_input)
        likeness = checks.likeness(
            path.name,
            run,
            validation,
            expected,
            precision=precision,
            rounding=cache(lambda: _rounding(job.model, next(iter(validation())))),
        )
    if precision in EIGHT_BITS_OR_MORE and likeness.error > STRIKING_ERROR:
        job.progress(
            f"warning: {path.name}: its outputs differ from torch's by {likeness.error:.0%} of "
            "their size (root mean square)"
        )
    sides = side_files(path)
    return Exported(
        name=path.name,
        stage=job.stage,
        path=path.name,
        side_files=tuple(SideFile(side.name, sha256_of(side)) for side in sides),
        format=format,
        precision=precision,
        size_bytes=sum(file.stat().st_size for file in (path, *sides)),
        sha256=sha256_of(path),
        input=replace(found.input, normalisation=job.raw_input),
        output=found.output,
        more_outputs=found.more_outputs,
        weight_bytes=found.weight_bytes,
        activation_bytes=found.activation_bytes,
        float_layers=_left_in_float(found, precision),
        fused_integer_convs=found.fused_integer_convs,
        convs=found.convs,
        agreement_validation=likeness.agreement,
        profile=profile,
    )


def _left_in_float(found: Inspection, precision: str) -> tuple[str, ...]:
    if precision in FLOATS:
        return ()
    return found.float_layers if precision in ACTIVATION_BITS else found.float_weights


def _inspect(path: Path, job: _Job, format: str, precision: str) -> Inspection:
    if format == "tflite":
        return inspect_tflite(path, job.outputs)
    rules = job.board.quantization.onnx
    return inspect_onnx(
        path,
        # TensorRT optimizes on the device; onnxruntime's graph says nothing about it.
        count_fused=precision in ("int8", "int8-dynamic")
        and rules is not None
        and rules.profile == "onnxruntime",
        int8_on_arm=job.board.cpu.arch == "aarch64",
    )
