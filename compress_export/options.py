"""The options of the main job as one frozen value, checked before any work starts.

The command line and `--config job.yaml` fill the same fields under the same names; job_file.py
merges them. None means "not said": the pipeline then decides from the model, data and board.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    field_validator,
    model_validator,
)

from boards.parts import CalibrationMethod, FilePrecision
from compress_export.durations import parse_latency_ms
from compress_export.outputs import absolute
from compress_export.sizes import parse_size
from compress_export.user_paths import expanded
from compressor.methods.catalogue import CATALOGUE, MethodName

Stage = Literal["prune", "quantize", "bench"]
Measured = Literal["auto", "joint"]
STAGES: tuple[Stage, ...] = ("prune", "quantize", "bench")

DEFAULT_METHOD: MethodName = "decore"

LEAST_SIZE, MOST_SIZE = 8, 1024
"""Pixels that an input may have."""

# Options that say where and how to run, not what to make: --resume may change these.
_NOT_IDENTITY = frozenset(
    {"out", "force", "resume", "config", "dry_run", "require_measured", "sign_key"}
)


def _split(value: object) -> object:
    """ "a,b" and [a, b] mean the same."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


def _triple(value: object) -> object:
    parts = _split(value)
    if isinstance(parts, list | tuple) and len(parts) != 3:
        raise ValueError("give three numbers, for red, green and blue: 0.485,0.456,0.406")
    return parts


def _size_bytes(value: object) -> object:
    if isinstance(value, str):
        return parse_size(value)
    raise ValueError("give a number with a unit, as in 1MiB, 500KiB or 2MB")


def _milliseconds(value: object) -> object:
    if isinstance(value, str):
        return parse_latency_ms(value)
    raise ValueError("give a number with a unit, as in 5ms or 250us")


def _expand(value: object) -> object:
    return expanded(value) if isinstance(value, str | Path) else value


def _spec(value: object) -> object:
    """A function stands for its name, by which it is found again; text is the name itself."""
    if not callable(value):
        return value
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", "")
    if module in (None, "__main__") or not name.isidentifier():
        raise ValueError(
            "a function has to stand in a module that can be imported, under a name of its own: "
            "saved networks are built by calling it again"
        )
    return f"{module}:{name}"


Spec = Annotated[str, BeforeValidator(_spec)]
UserPath = Annotated[Path, BeforeValidator(_expand)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Triple = Annotated[tuple[Finite, Finite, Finite], BeforeValidator(_triple)]
SizeBytes = Annotated[
    int, BeforeValidator(_size_bytes), PlainSerializer(lambda n: f"{n}B", return_type=str)
]

Milliseconds = Annotated[
    float, BeforeValidator(_milliseconds), PlainSerializer(lambda ms: f"{ms!r}ms", return_type=str)
]


class JobOptions(BaseModel):
    """Everything the main job can be told.

    Attributes in fractions of 1: target_macs, validation_share. In percentage points: max_drop.
    In bytes: target_size (constructed from text with a unit, "1MiB"). In milliseconds:
    target_latency (likewise, "5ms").
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    # What to compress, and for which board
    board: str = Field(min_length=1)
    model: Spec = Field("resnet20", min_length=1)
    weights: UserPath | None = None
    new_head: bool = False
    loss: Spec | None = Field(None, min_length=1)
    metric: Spec | None = Field(None, min_length=1)

    # Images
    data: Spec = Field("digits", min_length=1)
    data_root: UserPath | None = None
    input_size: int | None = Field(None, ge=LEAST_SIZE, le=MOST_SIZE)
    mean: Triple | None = None
    std: Triple | None = None
    validation_share: float | None = Field(None, gt=0, le=0.5)
    calibration_samples: int = Field(512, ge=1)
    augment: Literal["auto", "none", "crop", "crop+flip"] = "auto"
    strict: bool = False
    skip_broken: bool = False

    # How small, and how that is searched
    target_macs: float | None = None
    target_size: SizeBytes | None = None
    target_latency: Milliseconds | None = None
    max_drop: float | None = Field(None, ge=0, le=100)
    method: MethodName = DEFAULT_METHOD
    penalty: float | None = Field(None, gt=0, allow_inf_nan=False)
    rounds: int = Field(1, ge=1)
    baseline_epochs: int | None = Field(None, ge=0)
    search_epochs: int | None = Field(None, ge=0)
    finetune_epochs: int | None = Field(None, ge=0)
    batch_size: int | None = Field(None, ge=2)
    learning_rate: float | None = Field(None, gt=0, allow_inf_nan=False)
    schedule: Literal["one-cycle", "cosine"] = "one-cycle"
    regularizer: Literal["l1", "l2"] = "l2"
    weight_decay: float | None = Field(None, ge=0, lt=1)
    distill: Literal["logits", "features", "none"] = "logits"
    teacher: UserPath | None = None
    teacher_model: Spec | None = Field(None, min_length=1)
    codebook: int | None = Field(None, ge=2, le=256)
    codebook_fit: Literal["kmeans", "mixture"] | None = None
    codebook_epochs: int | None = Field(None, ge=0)
    qat_epochs: int = Field(0, ge=0)

    # What comes out
    stages: Annotated[tuple[Stage, ...], BeforeValidator(_split)] = STAGES
    formats: Annotated[tuple[Literal["onnx", "tflite"], ...], BeforeValidator(_split)] | None = None
    precision: Annotated[tuple[FilePrecision | Measured, ...], BeforeValidator(_split)] | None = (
        None
    )
    first_aid: Literal["auto", "none"] = "auto"
    raw_input: bool = False
    calibration: CalibrationMethod | None = None
    weight_scales: Literal["per-channel", "per-tensor"] | None = None
    activation_range: Literal["symmetric", "asymmetric"] | None = None
    latency_runs: int | None = Field(None, ge=1)
    bundle_samples: int = Field(0, ge=0)
    require_measured: bool = False
    sign_key: UserPath | None = None
    out: UserPath | None = None
    force: bool = False

    # How it runs
    resume: bool = False
    dry_run: bool = False
    config: UserPath | None = None
    seed: int = Field(0, ge=0, le=2**32 - 1)
    device: str = Field("cpu", pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")
    threads: int | None = Field(None, ge=1)

    @field_validator("target_macs")
    @classmethod
    def _share(cls, value: float | None) -> float | None:
        if value is not None and not 0 < value <= 1:
            raise ValueError(
                "must be above 0 and at most 1, the share of the original's MACs that may "
                "remain (half of them is 0.5)"
            )
        return value

    @field_validator("out")
    @classmethod
    def _has_a_name(cls, value: Path | None) -> Path | None:
        if value is not None and not absolute(value).name:
            raise ValueError("is the root of the file system; choose a folder in it")
        return value

    @field_validator("std")
    @classmethod
    def _positive(cls, value: Triple | None) -> Triple | None:
        if value is not None and min(value) <= 0:
            raise ValueError("every standard deviation must be above 0")
        return value

    @field_validator("precision")
    @classmethod
    def _named(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        """The first one is what goes to the board, so the order stays."""
        if value == ():
            raise ValueError("names nothing; leave the option out for the board's own")
        for word in ("auto", "joint"):
            if value is not None and word in value and len(value) > 1:
                raise ValueError(
                    f"{word} tries every precision that the board can have; give it alone"
                )
        return None if value is None else tuple(dict.fromkeys(value))

    @field_validator("stages", "formats")
    @classmethod
    def _ordered(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        return None if value is None else _in_order(value)

    @model_validator(mode="after")
    def _consistent(self) -> "JobOptions":
        if self.penalty is not None and self.method != "paper":
            raise ValueError(f"--penalty is the lambda of --method paper; {self.method} has none")
        if self.rounds > 1 and CATALOGUE[self.method].searches:
            raise ValueError(
                f"--rounds {self.rounds}: --method {self.method} prunes gradually by itself; "
                "rounds are for methods that choose at once, such as taylor"
            )
        if (self.mean is None) != (self.std is None):
            raise ValueError("--mean and --std belong together: give both or neither")
        if self.strict and self.skip_broken:
            raise ValueError("--strict and --skip-broken exclude each other: give one of them")
        self._check_new_head()
        self._check_pruning()
        self._check_teacher()
        self._check_joint()
        self._check_quantization_training()
        self._check_bundle_samples()
        self._check_sign_key()
        self._check_codebook()
        return self

    def _check_joint(self) -> None:
        if not self.chooses_jointly:
            return
        if not {"prune", "quantize"} <= set(self.stages) and self.stages != ("bench",):
            raise ValueError(
                f"--precision joint prunes and then quantizes, --stages {','.join(self.stages)} "
                "does not; name both or give --precision auto"
            )
        if self.codebook is not None:
            raise ValueError(
                f"--precision joint and --codebook {self.codebook} exclude each other: weights are "
                "shared by one network"
            )

    def _check_quantization_training(self) -> None:
        if self.qat_epochs == 0:
            return
        if self.codebook is not None:
            raise ValueError(
                f"--qat-epochs {self.qat_epochs} and --codebook {self.codebook} exclude each "
                "other: training for rounded weights would give every weight a value of its own"
            )

    def _check_codebook(self) -> None:
        wishes = {"--codebook-fit": self.codebook_fit, "--codebook-epochs": self.codebook_epochs}
        for name, value in wishes.items():
            if value is not None and self.codebook is None:
                raise ValueError(
                    f"{name} {value}: without --codebook no weights are shared; give the number of "
                    "entries, such as --codebook 16"
                )

    def _check_bundle_samples(self) -> None:
        given = f"--bundle-samples {self.bundle_samples}"
        if self.bundle_samples and "bench" not in self.stages:
            raise ValueError(
                f"{given}: test images are read by the stage bench; add it to --stages"
            )
        if self.bundle_samples and self.metric is not None:
            raise ValueError(
                f"{given}: runtime-bench judges top-1 alone, not --metric {self.metric}"
            )

    def _check_sign_key(self) -> None:
        if self.sign_key is not None and not {"quantize", "bench"} & set(self.stages):
            raise ValueError(
                f"--sign-key {self.sign_key}: --stages {','.join(self.stages)} makes no bundle to "
                "sign; add quantize"
            )

    def _check_new_head(self) -> None:
        if self.new_head and self.weights is None:
            raise ValueError("--new-head renews the last layer of given weights: give --weights")
        if self.new_head and self.baseline_epochs == 0:
            raise ValueError(
                "--baseline-epochs 0 would leave the last layer of --new-head untrained; give at "
                "least 1"
            )

    def _check_pruning(self) -> None:
        """What only pruning can do is refused without it, but by `--stages bench`, which compares
        its options with those that made the files."""
        if "prune" in self.stages or self.stages == ("bench",):
            return
        wishes = {
            "--target-macs": self.target_macs,
            "--penalty": self.penalty,
            "--rounds": self.rounds if self.rounds > 1 else None,
            "--method": None if self.method == DEFAULT_METHOD else self.method,
        }
        for name, value in wishes.items():
            if value is not None:
                raise ValueError(
                    f"{name} {value}: --stages {','.join(self.stages)} prunes nothing; add prune "
                    "or leave it out"
                )

    def _check_teacher(self) -> None:
        if self.teacher is not None and self.distill == "none":
            raise ValueError("--teacher has nothing to teach with --distill none; use logits")
        if self.teacher is not None and not self.distills and self.stages != ("bench",):
            raise ValueError(
                f"--teacher {self.teacher}: --stages {','.join(self.stages)} without --qat-epochs "
                "or --codebook trains nothing that it could teach; add prune or leave it out"
            )
        if self.teacher_model is not None and self.teacher is None:
            raise ValueError(
                f"--teacher-model {self.teacher_model} needs the weights of it: give --teacher FILE"
            )

    @property
    def distills(self) -> bool:
        """Whether a teacher teaches in any of the stages."""
        trains = (
            "prune" in self.stages
            or self.qat_epochs > 0
            or (self.codebook is not None and self.codebook_epochs != 0)
        )
        return trains and self.distill != "none" and self.stages != ("bench",)

    @property
    def named_precisions(self) -> tuple[FilePrecision, ...] | None:
        """The precisions that were asked for by name; None where the board's own is meant."""
        return None if self.chooses_precision else self.precision  # type: ignore[return-value]

    @property
    def chooses_precision(self) -> bool:
        """Whether measurements decide what goes to the board."""
        return self.precision in (("auto",), ("joint",))

    @property
    def chooses_jointly(self) -> bool:
        """Whether the network is pruned for every precision to choose from."""
        return self.precision == ("joint",)

    @property
    def target_size_bytes(self) -> int | None:
        """The same as target_size, with the unit in its name."""
        return self.target_size

    @property
    def target_latency_ms(self) -> float | None:
        """The same as target_latency, with the unit in its name."""
        return self.target_latency

    def identity(self) -> dict[str, Any]:
        """The options that decide what is made, as plain JSON: equal for runs that may resume
        each other."""
        return self.model_dump(mode="json", exclude=set(_NOT_IDENTITY))


def _in_order(chosen: Iterable[str]) -> tuple[str, ...]:
    """Without repeats, stages in the order in which they run."""
    unique = tuple(dict.fromkeys(chosen))
    if not unique:
        raise ValueError("names nothing; leave the option out for all of them")
    return tuple(sorted(unique, key=lambda name: (*STAGES, "onnx", "tflite").index(name)))
