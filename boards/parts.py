"""The parts of a descriptor: one frozen value per section of the YAML file.

Every key carries its unit in its name. MiB is 2**20 bytes. Numbers and flags are strict: a quoted
``"32"`` or ``"yes"`` is refused instead of guessed at. A part refuses what contradicts itself;
contradictions between parts are in :mod:`boards.rules`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

from boards.versions import VERSION_PATTERN, OnnxSupport, onnx_support

Kind = Literal["linux", "mcu"]
Arch = Literal["x86_64", "aarch64", "armv7e-m", "xtensa"]
Precision = Literal["float32", "float16", "int8"]
FilePrecision = Literal[
    "float32",
    "float16",
    "int8",
    "int8-dynamic",
    "int8-weights",
    "int4-weights",
    "int2-weights",
    "int8-int16",
]
"""What a file stores and computes in: int8 is static, int8-int16 has activations of 16 bits, and
activations of -weights are float."""
FILE_PRECISIONS: tuple[FilePrecision, ...] = get_args(FilePrecision)
Format = Literal["onnx", "tflite"]
CalibrationMethod = Literal["minmax", "moving-average", "percentile", "entropy", "mse"]
CALIBRATION_METHODS: tuple[CalibrationMethod, ...] = get_args(CalibrationMethod)
RuntimeName = Literal[
    "onnxruntime", "tensorrt", "litert", "tflite-runtime", "tflite-micro", "edgetpu"
]

Positive = Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(strict=True, ge=1)]
Flag = Annotated[bool, Field(strict=True)]
Text = Annotated[str, Field(min_length=1)]
VersionText = Annotated[str, Field(pattern=VERSION_PATTERN)]

# Instruction sets that change which kernels a runtime picks, by architecture.
ISA_BY_ARCH: dict[str, tuple[str, ...]] = {
    "x86_64": ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8"),
    "aarch64": ("neon", "fp16", "dotprod", "i8mm", "sve"),
    "armv7e-m": ("dsp", "fpu"),
    "xtensa": ("fpu", "vector"),
}


class Contradictions(ValueError):
    """One or more statements of a descriptor that can't hold together.

    Attributes:
        clauses: one short sentence per contradiction, each naming the keys concerned.
    """

    def __init__(self, clauses: Iterable[str]) -> None:
        self.clauses = tuple(clauses)
        super().__init__("; ".join(self.clauses))


class Part(BaseModel):
    """Base of every section: immutable, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Cpu(Part):
    """The processor that runs what the accelerator does not."""

    arch: Arch = Field(description="Architecture.")
    model: Text = Field(description="Core as its maker calls it, e.g. Cortex-A76.")
    cores: Count = Field(description="Number of cores of that kind.")
    clock_mhz: Positive | None = Field(
        default=None, description="Highest regular clock in MHz; left out where boards differ."
    )
    isa: tuple[str, ...] = Field(
        default=(),
        description="Instruction sets that the figures rely on; a latency measured on a host "
        "counts for the board only if the host has them all. "
        + " ".join(f"{arch}: {', '.join(names)}." for arch, names in ISA_BY_ARCH.items()),
    )

    @model_validator(mode="after")
    def _isa_belongs_to_arch(self) -> Cpu:
        known = ISA_BY_ARCH[self.arch]
        wrong = [name for name in self.isa if name not in known]
        if wrong:
            raise Contradictions(
                f"isa has {name!r}, which {self.arch} does not have; choose from {', '.join(known)}"
                for name in wrong
            )
        return self


class Memory(Part):
    """RAM, in three figures because one number is never enough."""

    total_mib: Positive = Field(description="RAM fitted, in MiB (2**20 bytes).")
    reserved_mib: NotNegative = Field(
        description="RAM taken by system, firmware or display before the model runs, in MiB."
    )
    usable_mib: Positive = Field(
        description="RAM that one model may take, in MiB; at most total_mib - reserved_mib."
    )
    shared_with_accelerator: Flag = Field(
        default=False, description="True where CPU and accelerator share this RAM."
    )

    @model_validator(mode="after")
    def _usable_fits(self) -> Memory:
        free_mib = self.total_mib - self.reserved_mib
        if self.usable_mib > free_mib + 1e-9:
            raise Contradictions(
                [
                    f"usable_mib {self.usable_mib:g} is more than total_mib - reserved_mib "
                    f"= {free_mib:g}"
                ]
            )
        return self


class Storage(Part):
    """Flash, eMMC, SD card or disk that holds the model file."""

    total_mib: Positive = Field(description="Capacity in MiB (2**20 bytes).")
    usable_mib: Positive = Field(
        description="What is left for models after system or firmware, in MiB."
    )

    @model_validator(mode="after")
    def _usable_fits(self) -> Storage:
        if self.usable_mib > self.total_mib:
            raise Contradictions(
                [f"usable_mib {self.usable_mib:g} is more than total_mib {self.total_mib:g}"]
            )
        return self


class Accelerator(Part):
    """A GPU or NPU beside the CPU."""

    name: Text = Field(description="The accelerator as its maker calls it.")
    precisions: tuple[Precision, ...] = Field(
        min_length=1, description="Precisions it computes in; every one also in the board's."
    )
    tops_int8: Positive | None = Field(
        default=None, description="Stated INT8 peak, in 10**12 operations per second."
    )
    tops_int8_kind: Literal["dense", "sparse"] | None = Field(
        default=None, description="Whether the stated peak assumes structured sparsity."
    )
    power_mode: Text | None = Field(
        default=None, description="Power mode the stated peak belongs to, e.g. MAXN."
    )

    @model_validator(mode="after")
    def _tops_are_explained(self) -> Accelerator:
        clauses = []
        if self.tops_int8 is not None and "int8" not in self.precisions:
            clauses.append(f"tops_int8 {self.tops_int8:g} is stated but precisions lack int8")
        if (self.tops_int8 is None) != (self.tops_int8_kind is None):
            clauses.append("tops_int8 and tops_int8_kind (dense or sparse) go together")
        if clauses:
            raise Contradictions(clauses)
        return self


class OnnxRules(Part):
    """How an INT8 ONNX file for this board is quantized (static, QDQ)."""

    profile: Literal["onnxruntime", "tensorrt"] = Field(
        description="Whose rules the file is checked against."
    )
    activation_dtype: Literal["uint8", "int8"] = Field(description="Type of activations.")
    activation_symmetric: Flag = Field(
        description="True: every activation zero point is 0, or 128 where they are uint8."
    )
    weight_dtype: Literal["int8"] = Field(default="int8", description="Type of weights.")
    weight_symmetric: Literal[True] = Field(
        default=True, description="Weight zero points are always 0."
    )
    per_channel_conv: Flag = Field(description="One scale per output channel of a convolution.")
    per_channel_linear: Flag = Field(description="One scale per output of a linear layer.")
    quantize_bias: Flag = Field(
        description="True: int32 bias behind a DequantizeLinear; false: float bias."
    )
    reduce_range: Flag = Field(
        default=False, description="7-bit weights, against saturation on x86 without VNNI."
    )
    weight_form: Literal["integer", "float"] = Field(
        default="integer",
        description="integer: int8 weights behind a DequantizeLinear; float (tensorrt only): float "
        "weights behind Q/DQ pairs, for tools that expect them, in a file as large as a float one.",
    )
    excluded_ops: tuple[Text, ...] = Field(
        default=(), description="ONNX operator types that stay in float, e.g. Softmax."
    )

    @model_validator(mode="after")
    def _tensorrt_accepts(self) -> OnnxRules:
        if self.profile != "tensorrt":
            if self.weight_form == "float":
                raise Contradictions(
                    ["weight_form float is for the tensorrt profile: here the file would only grow"]
                )
            return self
        wants = "the tensorrt profile wants "
        clauses = []
        if self.activation_dtype != "int8":
            clauses.append(f"{wants}activation_dtype int8, not {self.activation_dtype}")
        if not self.activation_symmetric:
            clauses.append(f"{wants}activation_symmetric true: TensorRT has no zero points")
        if not self.per_channel_conv:
            clauses.append(f"{wants}per_channel_conv true: one scale per output channel")
        if self.quantize_bias:
            clauses.append(f"{wants}quantize_bias false: TensorRT refuses int32 biases")
        if self.reduce_range:
            clauses.append(f"{wants}reduce_range false: it is a cure for x86 without VNNI")
        if "Softmax" not in self.excluded_ops:
            clauses.append(f"{wants}Softmax among excluded_ops")
        if clauses:
            raise Contradictions(clauses)
        return self


class TfliteRules(Part):
    """How a fully INT8 TFLite file for this board is quantized (static, int8 weights)."""

    io_dtype: Literal["int8"] = Field(default="int8", description="Type of input and output.")
    activation_symmetric: Flag = Field(
        default=False, description="True: every activation zero point is 0."
    )
    per_channel_conv: Flag = Field(
        default=True, description="One scale per output channel of a convolution."
    )
    per_channel_linear: Flag = Field(
        description="One scale per output of a linear layer; false where the runtime may be too "
        "old for it (early TensorFlow Lite Micro and Edge TPU)."
    )


Rules = TypeVar("Rules", OnnxRules, TfliteRules)


class Quantization(Part):
    """INT8 rules per file format; none for a board without INT8."""

    calibration: CalibrationMethod = Field(
        default="minmax", description="How ranges of activations are found, in both formats."
    )
    onnx: OnnxRules | None = Field(default=None, description="Rules for INT8 ONNX files.")
    tflite: TfliteRules | None = Field(default=None, description="Rules for INT8 TFLite files.")

    def changed(
        self,
        *,
        calibration: CalibrationMethod | None = None,
        per_channel: bool | None = None,
        symmetric: bool | None = None,
    ) -> Quantization:
        """Return rules in which what isn't None takes the place of the board's own.

        Args:
            per_channel: scales of weights. Linear layers get one for each output only where the
                board's own rules have that.
            symmetric: activations.

        Raises:
            pydantic.ValidationError: the rules don't allow it, as `OnnxRules` says.
        """
        return Quantization(
            calibration=calibration or self.calibration,
            onnx=self.onnx and _changed(self.onnx, per_channel, symmetric),
            tflite=self.tflite and _changed(self.tflite, per_channel, symmetric),
        )


def _changed(rules: Rules, per_channel: bool | None, symmetric: bool | None) -> Rules:
    content = rules.model_dump()
    if per_channel is not None:
        content["per_channel_conv"] = per_channel
        content["per_channel_linear"] = per_channel and rules.per_channel_linear
    if symmetric is not None:
        content["activation_symmetric"] = symmetric
    return type(rules)(**content)


class Runtime(Part):
    """A runtime found on the board."""

    name: RuntimeName = Field(description="The runtime.")
    min_version: VersionText = Field(
        description='Oldest release the board may have, quoted ("1.20" unquoted would be 1.2). '
        "Decides the highest ONNX opset and IR version that may be written."
    )

    @model_validator(mode="after")
    def _support_is_known(self) -> Runtime:
        onnx_support(self.name, self.min_version)
        return self

    @property
    def onnx_support(self) -> OnnxSupport | None:
        """Highest opset and IR version of ``min_version``; None if it reads no ONNX."""
        return onnx_support(self.name, self.min_version)


class Budgets(Part):
    """What a model may cost on this board. A budget left out is not checked."""

    file_size_mib: Positive | None = Field(
        default=None, description="Size of each model file with its side files, in MiB."
    )
    weights_mib: Positive | None = Field(
        default=None, description="Bytes of all constants in the file, in MiB (flash on an mcu)."
    )
    activation_memory_mib: Positive | None = Field(
        default=None, description="Peak of live activations at batch 1, in MiB (RAM on an mcu)."
    )
    peak_rss_mib: Positive | None = Field(
        default=None, description="Peak resident memory of the process, in MiB (linux only)."
    )
    latency_p90_ms: Positive | None = Field(
        default=None, description="90th percentile of the latency at batch 1, in milliseconds."
    )
    accuracy_drop_points: Annotated[float, Field(strict=True, ge=0, le=100)] | None = Field(
        default=None,
        description="Top-1 that may be lost against the baseline, in percentage points.",
    )

    def limits(self) -> dict[str, float]:
        """Only the budgets that are set, by key, for the manifest."""
        return {key: value for key, value in self if value is not None}


class Source(Part):
    """Where a figure comes from."""

    claim: Text = Field(description="Which figures.")
    source: Text = Field(description="Document, page or measurement.")
    confirmed: Flag = Field(
        description="True only if the source itself was read or the measurement was made."
    )
