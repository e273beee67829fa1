"""Read the manifest.json of a model folder as frozen values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from runtime_bench.errors import ManifestError
from runtime_bench.plain_json import read_json

MANIFEST_NAME = "manifest.json"
SCHEMA_VERSION = 1
BUDGETS = (
    "file_size_mib",
    "weights_mib",
    "activation_memory_mib",
    "peak_rss_mib",
    "latency_p90_ms",
    "accuracy_drop_points",
    "ram_mib",
    "flash_mib",
)
RUNTIMES = {
    "onnx": ("onnxruntime",),
    "tflite": ("ai-edge-litert", "tflite-runtime", "tflite-micro"),
}
"""What can run a format, the preferred one first."""

PRECISIONS = (
    "float32", "float16", "int8", "int8-dynamic", "int8-weights", "int4-weights", "int2-weights",
    "int8-int16",
)  # fmt: skip
QUANTIZED = ("int8", "uint8", "int16")
TOP1 = "top-1"
_CAUSE = "was the folder written by compress-export and copied whole?"
_NUMBER = (int, float)
_MOST_VALUES = 2**26
_MOST_CHARACTERS = 200  # of a path; a file system takes 255 bytes


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of a file.

    Attributes:
        name: tensor name in the file.
        shape: dimensions; -1 stands for the free batch dimension.
        layout: "NCHW" or "NHWC" for an image, "" for an output.
        dtype: numpy name, e.g. "float32" or "int8".
        scale, zero_point: real = scale * (stored - zero_point); None for a float tensor.
        normalisation: what the file itself does with uint8 pixels; None where it takes normalised
            images, and for outputs.
    """

    name: str
    shape: tuple[int, ...]
    layout: str
    dtype: str
    scale: float | None
    zero_point: int | None
    normalisation: Normalisation | None = None

    @property
    def quantized(self) -> bool:
        return self.scale is not None

    @classmethod
    def from_json(cls, data: Any, where: str) -> TensorSpec:
        name = _text(data, "name", where)
        shape = _items(data, "shape", int, where)
        layout = str(data.get("layout") or "")
        if layout not in ("", "NCHW", "NHWC"):
            raise ManifestError(f"{where}: layout {layout!r} is neither NCHW nor NHWC")
        dtype = _choice(data, "dtype", ("float32", "float16", *QUANTIZED), where)
        scale, zero_point = data.get("scale"), data.get("zero_point")
        normalisation = None
        if data.get("normalisation"):
            normalisation = Normalisation.from_json(data["normalisation"], where)
            if dtype != "uint8":
                raise ManifestError(f"{where}: pixels are uint8, not {dtype}")
        if dtype in QUANTIZED and normalisation is None:
            scale = float(_get(data, "scale", _NUMBER, where))
            zero_point = _get(data, "zero_point", int, where)
            if not (math.isfinite(scale) and scale > 0):
                raise ManifestError(f"{where}: scale {scale!r} is not a positive number")
        else:
            scale = zero_point = None
        return cls(name, shape, layout, dtype, scale, zero_point, normalisation)


@dataclass(frozen=True)
class SideFile:
    """A file that a model file needs beside it (ONNX external data)."""

    path: str
    sha256: str | None

    @classmethod
    def from_json(cls, data: Any, where: str) -> SideFile:
        if isinstance(data, str):
            return cls(inside(data, where), None)
        return cls(inside(_text(data, "path", where), where), _optional(data, "sha256", str, where))


@dataclass(frozen=True)
class ProfileRef:
    """The target whose rules the exporter checked.

    Attributes:
        benchable: this bench runs the file as the target does, on CPU cores.
    """

    name: str
    benchable: bool

    @classmethod
    def from_json(cls, data: Any, where: str) -> ProfileRef:
        benchable = data.get("benchable") if isinstance(data, Mapping) else None
        if not isinstance(benchable, bool):
            raise ManifestError(f"{where}: 'benchable' is {benchable!r}, expected bool; {_CAUSE}")
        return cls(_text(data, "name", where), benchable)


@dataclass(frozen=True)
class ModelFile:
    """One entry of the manifest's `files`.

    Attributes:
        path: POSIX path relative to the folder.
        size_bytes: bytes on disk, side files included.
        output: what `Runner.run` returns and accuracy is measured on.
        more_outputs: the file's other outputs, which are computed and timed as well.
        weight_bytes: bytes of the constants by dtype; None where the exporter gave none.
        activation_bytes: liveness lower bound at batch 1, in bytes; None where not given.
        profile: None for float files and in folders of earlier releases.
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
    weight_bytes: dict[str, int] | None
    activation_bytes: int | None
    more_outputs: tuple[TensorSpec, ...] = ()
    profile: ProfileRef | None = None

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        return (self.output, *self.more_outputs)

    @classmethod
    def from_json(cls, data: Any, where: str) -> ModelFile:
        name = _text(data, "name", where)
        where = f"{where} ({name})"
        return cls(
            name=name,
            stage=_choice(data, "stage", ("baseline", "slim"), where),
            path=inside(_text(data, "path", where), where),
            side_files=tuple(
                SideFile.from_json(item, where)
                for item in _optional(data, "side_files", list, where) or ()
            ),
            format=_choice(data, "format", ("onnx", "tflite"), where),
            precision=_choice(data, "precision", PRECISIONS, where),
            size_bytes=_get(data, "size_bytes", int, where),
            sha256=_text(data, "sha256", where).lower(),
            input=TensorSpec.from_json(_get(data, "input", dict, where), f"{where}, input"),
            output=TensorSpec.from_json(_get(data, "output", dict, where), f"{where}, output"),
            weight_bytes=_weight_bytes(data, where),
            activation_bytes=_optional(data, "activation_bytes", int, where),
            more_outputs=tuple(
                TensorSpec.from_json(item, f"{where}, more_outputs")
                for item in _optional(data, "more_outputs", list, where) or ()
            ),
            profile=(
                ProfileRef.from_json(data["profile"], f"{where}, profile")
                if data.get("profile")
                else None
            ),
        )


@dataclass(frozen=True)
class CodebookRef:
    """The folder's codebook file, which `codebook_file.read_codebook_file` expands.

    Attributes:
        path: POSIX path relative to the folder.
        entries: of the largest codebook.
        expanded_bytes: of its tensors.
    """

    path: str
    size_bytes: int
    sha256: str
    entries: int
    expanded_bytes: int

    @classmethod
    def from_json(cls, data: Any, where: str) -> CodebookRef:
        return cls(
            path=inside(_text(data, "path", where), where),
            size_bytes=_get(data, "size_bytes", int, where),
            sha256=_text(data, "sha256", where).lower(),
            entries=_get(data, "entries", int, where),
            expanded_bytes=_get(data, "expanded_bytes", int, where),
        )


@dataclass(frozen=True)
class BoardRef:
    """What the manifest says of the board: enough to tell whether this host can speak for it.

    Attributes:
        timed_elsewhere: format -> profile of what computes its files, where no CPU core does.
    """

    id: str
    kind: str
    arch: str
    isa: tuple[str, ...]
    cores: int | None
    timed_elsewhere: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_json(cls, data: Any, where: str) -> BoardRef:
        elsewhere = _optional(data, "timed_elsewhere", dict, where) or {}
        return cls(
            id=_text(data, "id", where),
            kind=_text(data, "kind", where),
            arch=_text(data, "arch", where),
            isa=_items(data, "isa", str, where),
            cores=_optional(data, "cores", int, where),
            timed_elsewhere={
                format: _text(elsewhere, format, f"{where}, timed_elsewhere")
                for format in elsewhere
            },
        )


@dataclass(frozen=True)
class Normalisation:
    """How pixels become the network's input: (pixel * scale - mean) / std per channel."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    scale: float

    @classmethod
    def from_json(cls, data: Any, where: str) -> Normalisation:
        mean = tuple(float(value) for value in _items(data, "mean", _NUMBER, where))
        std = tuple(float(value) for value in _items(data, "std", _NUMBER, where))
        if len(mean) != len(std) or not all(math.isfinite(v) and v > 0 for v in std):
            raise ManifestError(
                f"{where}: mean {list(mean)} and std {list(std)} must be of one length, std above 0"
            )
        scale = float(_get(data, "scale", _NUMBER, where))
        return cls(mean, std, scale)


@dataclass(frozen=True)
class Preprocessing(Normalisation):
    """How a uint8 image becomes the network's input; `normalise` in preprocess.py does it."""

    channel_order: str

    @classmethod
    def from_json(cls, data: Any, where: str) -> Preprocessing:
        found = Normalisation.from_json(data, where)
        order = _choice(data, "channel_order", ("RGB", "BGR"), where)
        return cls(found.mean, found.std, found.scale, order)


@dataclass(frozen=True)
class Manifest:
    """The manifest of one model folder; `folder` is where it was read.

    Attributes:
        budgets: the board's limits, only those that are set, keyed by the names in BUDGETS.
        image_shape: (channels, height, width) of the network's input.
        metric: what accuracy means; other than TOP1 it is code that only compress_export knows.
        codebook: the weights in another form, where they are shared.
    """

    folder: Path
    board: BoardRef
    budgets: dict[str, float]
    model: str
    classes: tuple[str, ...]
    image_shape: tuple[int, int, int]
    preprocessing: Preprocessing
    files: tuple[ModelFile, ...]
    metric: str = TOP1
    codebook: CodebookRef | None = None


def read_manifest(folder: Path) -> Manifest:
    """Read `folder`/manifest.json.

    Raises:
        ManifestError: no such folder or file, not JSON, another schema version, a missing or wrong
            field. The files themselves are checked by `verify.verify_files`.
    """
    path = Path(folder) / MANIFEST_NAME
    try:
        data = read_json(path)
    except OSError as error:
        raise ManifestError(f"{path}: {error.strerror}; {_CAUSE}") from error
    except ValueError as error:
        raise ManifestError(f"{path}: not JSON ({error}); {_CAUSE}") from error
    where = str(path)
    version = data.get("schema_version") if isinstance(data, dict) else None
    if version != SCHEMA_VERSION:
        raise ManifestError(
            f"{where}: schema_version is {version!r}, this bench reads {SCHEMA_VERSION}; "
            "was the folder written by another version of compress-export?"
        )
    shape = _get(data, "input", dict, where)
    entries = _get(data, "files", list, where)
    return Manifest(
        folder=Path(folder),
        board=BoardRef.from_json(_get(data, "board", dict, where), f"{where}: board"),
        budgets=_budgets(_get(data, "budgets", dict, where), where),
        model=_text(data, "model", where),
        classes=tuple(str(name) for name in _get(data, "classes", list, where)),
        image_shape=_image_shape(shape, where),
        preprocessing=Preprocessing.from_json(
            _get(data, "preprocessing", dict, where), f"{where}: preprocessing"
        ),
        files=tuple(
            ModelFile.from_json(entry, f"{where}: files[{index}]")
            for index, entry in enumerate(entries)
        ),
        metric=str(data.get("metric") or TOP1),
        codebook=None
        if data.get("codebook") is None
        else CodebookRef.from_json(data["codebook"], f"{where}: codebook"),
    )


def _image_shape(data: Mapping[str, Any], where: str) -> tuple[int, int, int]:
    sizes = [_get(data, name, int, where) for name in ("channels", "height", "width")]
    # The bench draws noise of this shape, in float64.
    if min(sizes) < 1 or math.prod(sizes) > _MOST_VALUES:
        raise ManifestError(
            f"{where}: an image of {' x '.join(map(str, sizes))} values; each has to be at least "
            f"1, and their product at most {_MOST_VALUES}"
        )
    return sizes[0], sizes[1], sizes[2]


def _weight_bytes(data: Any, where: str) -> dict[str, int] | None:
    found = _optional(data, "weight_bytes", dict, where)
    return found and {dtype: _get(found, dtype, int, f"{where}, weight_bytes") for dtype in found}


def _budgets(data: Mapping[str, Any], where: str) -> dict[str, float]:
    """The limits that are set. An unknown one is refused: ignored, it would pass unseen."""
    limits: dict[str, float] = {}
    for name, limit in data.items():
        if name not in BUDGETS:
            raise ManifestError(f"{where}: unknown budget {name!r}; known are {', '.join(BUDGETS)}")
        if limit is None:
            continue
        limits[name] = float(_get(data, name, _NUMBER, f"{where}: budgets"))
        if not math.isfinite(limits[name]):
            raise ManifestError(f"{where}: budget {name} is {limit!r}, not a finite number")
    return limits


def _get(data: Any, key: str | int, kind: type | tuple[type, ...], where: str) -> Any:
    """The value of `key`, of the type asked for, or a ManifestError that says what is there."""
    if not isinstance(data, Mapping):
        raise ManifestError(f"{where}: {_short(data)} is not an object; {_CAUSE}")
    if key not in data:
        raise ManifestError(f"{where}: '{key}' is missing; {_CAUSE}")
    value = data[key]
    if isinstance(value, bool) or not isinstance(value, kind):
        kinds = kind if isinstance(kind, tuple) else (kind,)
        names = " or ".join(one.__name__ for one in kinds)
        raise ManifestError(f"{where}: '{key}' is {_short(value)}, expected {names}; {_CAUSE}")
    return value


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:197]}..."


def _items(data: Any, key: str, kind: type | tuple[type, ...], where: str) -> tuple[Any, ...]:
    """The entries of a list, all of one type."""
    items = dict(enumerate(_get(data, key, list, where)))
    return tuple(_get(items, index, kind, f"{where}, {key}") for index in items)


def _optional(data: Any, key: str, kind: type, where: str) -> Any:
    return None if data.get(key) is None else _get(data, key, kind, where)


def _text(data: Any, key: str, where: str) -> str:
    """Names go to terminals, and to devices as lines: no control characters in them."""
    value = str(_get(data, key, str, where))
    if not value.isprintable():
        raise ManifestError(f"{where}: '{key}' is {value[:80]!r}, with control characters")
    return value


def _choice(data: Any, key: str, allowed: tuple[str, ...], where: str) -> str:
    value = _text(data, key, where)
    if value not in allowed:
        raise ManifestError(f"{where}: '{key}' is {value!r}, allowed: {', '.join(allowed)}")
    return value


def inside(path: str, where: str) -> str:
    """Return the path of a file in the folder; ManifestError where it would lead out of it."""
    pure = PurePosixPath(path)
    odd = not path.isprintable() or "\\" in path or len(path) > _MOST_CHARACTERS
    if odd or pure.is_absolute() or ".." in pure.parts or not pure.parts:
        raise ManifestError(f"{where}: path {path[:200]!r} does not stay inside the folder")
    return path
