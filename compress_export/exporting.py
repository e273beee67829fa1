"""The export stage: which files, in which folder, with which manifest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress_export.options import JobOptions
from compress_export.task import Task

if TYPE_CHECKING:
    from torch import nn

    from boards import Board
    from boards.parts import FilePrecision, Quantization
    from exporters import CodebookFile, Exported


@dataclass(frozen=True)
class Exports:
    """Exports networks of one task for one board.

    Attributes:
        task: images for calibration and comparison.
        board: rules and budgets, the user's own limits already in their place.
        formats: "onnx" and "tflite", or one of them.
        precision: of the files that go to the board: the user's first, else the board's smallest.
        say: is told each step.
        compared: further precisions of the network that goes to the board.
        raw_input: files take uint8 pixels and normalise them.
    """

    task: Task
    board: Board
    formats: tuple[str, ...]
    precision: FilePrecision
    say: Callable[[str], None]
    compared: tuple[FilePrecision, ...] = ()
    raw_input: bool = False

    def write(
        self,
        model: nn.Module,
        stage: str,
        folder: Path,
        precisions: Sequence[str],
        float_layers: Sequence[str] = (),
    ) -> tuple[Exported, ...]:
        """Write a network's files into a folder.

        Args:
            float_layers: that stay float in files of integers.
        """
        from exporters import Calibration, Normalisation, export_files

        images = self.task.preprocessing
        return export_files(
            model.cpu().eval(),
            stage=stage,
            folder=folder,
            input_shape=self.task.input_shape,
            calibration=Calibration(self.task.calibration_stream),
            validation=self.task.validation_stream,
            board=self.board,
            formats=self.formats,
            precisions=precisions,
            progress=self.say,
            raw_input=Normalisation(images.mean, images.std, images.scale)
            if self.raw_input
            else None,
            float_layers=float_layers,
        )

    def finish_reference(self, folder: Path, files: Sequence[Exported]) -> None:
        """Write the manifest of the folder that holds files for comparison."""
        from exporters import write_manifest

        write_manifest(folder, files, **self._described())

    def finish_bundle(
        self, folder: Path, files: Sequence[Exported], codebook: CodebookFile | None = None
    ) -> None:
        """Complete the folder that goes to the board.

        Args:
            codebook: the codebook file there, if any.
        """
        from compress_export.bundling import complete_bundle
        from exporters import write_bundle

        write_bundle(folder, files, codebook=codebook, **self._described())
        complete_bundle(folder, self.board)

    def _described(self) -> dict[str, Any]:
        metric = self.task.objective.metric
        return {
            "board": self.board,
            "model": self.task.architecture,
            "classes": self.task.data.classes,
            "input_shape": self.task.input_shape,
            "preprocessing": self.task.preprocessing.to_json(),
            "metric": "top-1" if metric is None else metric.name,
        }


def chosen_precisions(
    options: JobOptions, board: Board, formats: Sequence[str]
) -> tuple[FilePrecision, ...]:
    """Return the precisions to make, that of the files for the board first.

    Files to compare with may be of a float precision that the board doesn't have; what goes to it
    may not.

    Raises:
        UsageError: the board can't have one of the user's.
    """
    from compress_export.errors import UsageError
    from exporters.support import may_ship

    wanted = options.named_precisions or (board.target_precision,)
    for precision in options.named_precisions or ():
        if (reason := why_not_all(board, formats, precision)) is not None:
            raise UsageError(f"--precision {precision}: {reason}")
    if not may_ship(board, shipped := wanted[0]):
        raise UsageError(
            f"--precision {shipped}: the first one goes to the board, and {board.id} is for "
            f"{', '.join(board.precisions)}; name {shipped} after one that it has, to compare with"
        )
    return wanted


def why_not_all(board: Board, formats: Sequence[str], precision: str) -> str | None:
    """Return one line that says why a board can't have a precision in all of the formats, and in
    which it can; None where it can."""
    from exporters.support import why_not

    reasons = {name: why_not(board, name, precision) for name in formats}
    refused = [reason for reason in reasons.values() if reason is not None]
    if not refused:
        return None
    able = [name for name, reason in reasons.items() if reason is None]
    way_out = f"; --formats {','.join(able)} can have it" if able else ""
    return f"{'; '.join(refused)}{way_out}"


def refuse_pixels(options: JobOptions, board: Board) -> None:
    """Refuse `--raw-input` for a board that has nothing but integers (UsageError)."""
    from compress_export.errors import UsageError
    from exporters.support import why_not_pixels

    reason = why_not_pixels(board) if options.raw_input else None
    if reason is not None:
        raise UsageError(f"--raw-input: {reason}")


def refuse_idle_rules(options: JobOptions, board: Board, formats: Sequence[str]) -> None:
    """Refuse rules of quantization that none of the files to be made follows (UsageError)."""
    from compress_export.errors import UsageError
    from compress_export.precision_choice import possible
    from exporters.support import FLOATS

    wanted = chosen_precisions(options, board, formats)
    made = {
        (format, precision)
        for format in formats
        for precision in (possible(board, format) if options.chooses_precision else wanted)
    }
    static = {file for file in made if file[1] in ("int8", "int8-int16")}
    followers = {
        "--calibration": (static, "int8 and int8-int16 files"),
        "--weight-scales": ({p for _, p in made} - {*FLOATS}, "files of integers"),
        # TFLite's 16-bit activations have zero point 0 by any rules
        "--activation-range": (
            static - {("tflite", "int8-int16")},
            "int8 files and int8-int16 ONNX files",
        ),
    }
    for name, value in _own_rules(options).items():
        found, whose = followers[name]
        if not found:
            raise UsageError(
                f"{name} {value}: it is for {whose}, and {', '.join(wanted)} in "
                f"{', '.join(formats)} makes none; name int8 in --precision, or leave it out"
            )


def _own_rules(options: JobOptions) -> dict[str, str]:
    """Rules of quantization that the user gave, by option."""
    rules = {
        "--calibration": options.calibration,
        "--weight-scales": options.weight_scales,
        "--activation-range": options.activation_range,
    }
    return {name: value for name, value in rules.items() if value is not None}


def chosen_quantization(options: JobOptions, board: Board) -> Quantization:
    """Return the INT8 rules: the user's, where the board can take them, else the board's."""
    from pydantic import ValidationError

    from compress_export.errors import UsageError

    said = " ".join(f"{name} {value}" for name, value in _own_rules(options).items())
    rules = board.quantization
    if said and rules.onnx is None and rules.tflite is None:
        raise UsageError(
            f"{said}: board {board.id} has no INT8 rules to change, its precisions are "
            f"{', '.join(board.precisions)}"
        )
    scales, range_ = options.weight_scales, options.activation_range
    try:
        return rules.changed(
            calibration=options.calibration,
            per_channel=None if scales is None else scales == "per-channel",
            symmetric=None if range_ is None else range_ == "symmetric",
        )
    except ValidationError as error:
        clauses = (clause for e in error.errors() for clause in e["ctx"]["error"].clauses)
        raise UsageError(f"{said}: board {board.id}: {'; '.join(clauses)}") from None


def chosen_formats(options: JobOptions, board: Board) -> tuple[str, ...]:
    """Return the formats to make: the user's, else all that the board runs."""
    from compress_export.errors import UsageError

    wanted = options.formats or board.formats
    strange = [name for name in wanted if name not in board.formats]
    if strange:
        raise UsageError(
            f"--formats {','.join(wanted)}: board {board.id} runs {', '.join(board.formats)} only"
        )
    return tuple(wanted)


def formats_for(
    model: nn.Module, formats: tuple[str, ...], say: Callable[[str], None]
) -> tuple[str, ...]:
    """Return the formats whose files can hold a network; `say` is told why others can't.

    Raises:
        InputError: none can.
    """
    from compressor.errors import InputError
    from exporters.support import why_too_large

    reasons = {name: why_too_large(model, name) for name in formats}
    left = tuple(name for name, reason in reasons.items() if reason is None)
    for name, reason in reasons.items():
        if reason is None:
            continue
        line = f"no {name} file of this network: {reason}"
        if not left:
            way_out = "compress it with --formats onnx or --stages prune first"
            raise InputError(f"--formats {name}: {line}; {way_out}")
        say(line)
    return left
