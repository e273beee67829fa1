"""What is known of an exported file: the entry of manifest.json as a value."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from boards.parts import FILE_PRECISIONS
from exporters.profiles.profile import CheckedProfile
from exporters.raw_input import Normalisation

STAGES = ("baseline", "slim")
FORMATS = ("onnx", "tflite")
PRECISIONS: tuple[str, ...] = FILE_PRECISIONS


@dataclass(frozen=True)
class TensorSpec:
    """An input or output of a file. Scale and zero point only where it is quantized.

    Attributes:
        shape: -1 stands for the free batch dimension.
        layout: "NCHW" or "NHWC" for images, None for outputs.
        normalisation: what the file itself does with the uint8 pixels that it takes; None where it
            takes normalised images, and for outputs.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    scale: float | None = None
    zero_point: int | None = None
    layout: str | None = None
    normalisation: Normalisation | None = None

    def to_json(self) -> dict[str, Any]:
        entry = asdict(self) | {"shape": list(self.shape)}
        if self.layout is None:
            del entry["layout"]
        del entry["normalisation"]
        if self.normalisation is not None:
            entry["normalisation"] = self.normalisation.to_json()
        return entry

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> TensorSpec:
        normalisation = entry.get("normalisation")
        if normalisation is not None:
            mean, std = (tuple(normalisation[key]) for key in ("mean", "std"))
            normalisation = Normalisation(mean, std, normalisation["scale"])
        fixed = {"shape": tuple(entry["shape"]), "normalisation": normalisation}
        return cls(**{**entry, **fixed})


@dataclass(frozen=True)
class Inspection:
    """What reading a file back shows.

    Attributes:
        output, more_outputs: in the order of the file.
        weight_bytes: bytes of constants by dtype.
        activation_bytes: largest sum of tensors alive at once, at batch 1: a lower bound of the
            memory that a runtime needs for activations.
        float_layers: convolutions and linear layers that don't compute on integers.
        float_weights: those whose weights are stored as float32.
        convs: convolutions in the file.
        fused_integer_convs: convolutions that run on integers in the runtime's optimized graph;
            None where the format has no such graph.
        op_counts: operators by name.
    """

    input: TensorSpec
    output: TensorSpec
    weight_bytes: dict[str, int]
    activation_bytes: int
    float_layers: tuple[str, ...]
    float_weights: tuple[str, ...]
    convs: int
    fused_integer_convs: int | None
    op_counts: dict[str, int] = field(compare=False)
    more_outputs: tuple[TensorSpec, ...] = ()

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        return (self.output, *self.more_outputs)


@dataclass(frozen=True)
class SideFile:
    """A file that a model file needs beside it: the weights of an ONNX model beyond 2 GiB."""

    path: str
    sha256: str


@dataclass(frozen=True)
class Exported:
    """One file of a model folder, as in manifest.json.

    Attributes:
        size_bytes: side files included.
        output: the first one; what accuracy is measured on.
        more_outputs: the others, in the order in which the model returns them.
        float_layers: convolutions and linear layers that the precision left in float: by what they
            compute on where activations are quantized beforehand, else by their weights.
        profile: the target's rules that an INT8 file keeps to; None for other precisions.
    """

    name: str
    stage: str
    path: str
    side_files: tuple[SideFile, ...]
    format: str
    precision: str
    size_bytes: int
    sha256: str
    input: TensorSpec
    output: TensorSpec
    weight_bytes: dict[str, int]
    activation_bytes: int
    float_layers: tuple[str, ...]
    fused_integer_convs: int | None
    convs: int
    agreement_validation: float | None
    more_outputs: tuple[TensorSpec, ...] = ()
    profile: CheckedProfile | None = None

    def __post_init__(self) -> None:
        for value, known in (
            (self.stage, STAGES),
            (self.format, FORMATS),
            (self.precision, PRECISIONS),
        ):
            if value not in known:
                raise ValueError(f"{value!r} is none of {', '.join(known)}")

    @property
    def paths(self) -> tuple[str, ...]:
        """Everything that has to be copied: the file itself, then its side files."""
        return (self.path, *(side.path for side in self.side_files))

    def to_json(self) -> dict[str, Any]:
        """The manifest entry as plain JSON types."""
        return asdict(self) | {
            "side_files": [asdict(side) for side in self.side_files],
            "float_layers": list(self.float_layers),
            "input": self.input.to_json(),
            "output": self.output.to_json(),
            "more_outputs": [output.to_json() for output in self.more_outputs],
            "profile": self.profile and self.profile.to_json(),
        }

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> Exported:
        profile = entry.get("profile")
        return cls(
            **{
                **entry,
                "side_files": tuple(SideFile(**side) for side in entry["side_files"]),
                "float_layers": tuple(entry["float_layers"]),
                "input": TensorSpec.from_json(entry["input"]),
                "output": TensorSpec.from_json(entry["output"]),
                "more_outputs": tuple(map(TensorSpec.from_json, entry.get("more_outputs", ()))),
                "profile": CheckedProfile.from_json(profile) if profile else None,
            }
        )


def file_name(stage: str, precision: str, format: str) -> str:
    """Name of a file in a model folder, such as slim.int8.onnx."""
    return f"{stage}.{precision}.{format}"


def sha256_of(path: Path) -> str:
    """SHA-256 of a file as hexadecimal digits, read in chunks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
