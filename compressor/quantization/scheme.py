"""How files of a precision store numbers, as far as training has to know it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from boards import OnnxRules, TfliteRules
from boards.parts import FilePrecision

_LIMITS: dict[FilePrecision, int] = {"int4-weights": 7, "int2-weights": 1}
_REDUCED_LIMIT = 64
_REDUCED_UNSIGNED_LIMIT = 63  # 0 to 127


@dataclass(frozen=True)
class Scheme:
    """Integer grids of weights and activations.

    Weights are symmetric (zero point 0) and use -q to q. Activations use all 2**bits values,
    symmetric ones around the middle, others around a zero point; asymmetric weights 2 q + 2 values.

    Attributes:
        weight_limit: q of every weight of a convolution or linear layer: 127 for 8 bits, 7 for 4,
            1 for 2.
        activation_bits: of what operators hand on; None leaves activations in float.
        symmetric_activations: zero in the middle of the integers.
        per_channel_convolutions, per_channel_linear: one scale for each output channel instead of
            one for the whole weight.
        rounded_biases: biases are 32-bit integers in steps of the input's scale times the weight's,
            where activations are integers; otherwise they stay exact.
        quantized_outputs: whether the network's own outputs are rounded, too.
        fused_additions: files leave out the rounding that TensorRT's fusions do without, as
            `points.rounded_results` says.
        asymmetric_weights: with a zero point. Transposed convolutions stay exact then: files that
            have such weights leave them in float.
    """

    weight_limit: int = 127
    activation_bits: int | None = 8
    symmetric_activations: bool = False
    per_channel_convolutions: bool = True
    per_channel_linear: bool = True
    rounded_biases: bool = True
    quantized_outputs: bool = False
    fused_additions: bool = False
    asymmetric_weights: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.weight_limit <= 127:
            raise ValueError(f"weight_limit is {self.weight_limit}, must be 1 to 127")
        if self.activation_bits not in (None, 8, 16):
            raise ValueError(f"activation_bits is {self.activation_bits}, must be 8, 16 or None")

    @property
    def weight_bits(self) -> int:
        """What a weight takes in a file."""
        return {1: 2, 7: 4}.get(self.weight_limit, 8)

    @classmethod
    def of(cls, precision: FilePrecision, rules: OnnxRules | TfliteRules | None) -> Scheme:
        """Return what files of a precision hold that keep to a board's rules.

        int8-dynamic finds the ranges of activations anew for every image: only its weights are
        known beforehand. In ONNX these are unsigned, with one scale for a convolution and, where
        convolutions had one for each channel in static files, one for each output of a linear
        layer, by onnxruntime's `quantize_dynamic` (`exporters.onnx_dynamic`).

        Args:
            rules: of the format; None where the board has none: one scale for each channel.

        Raises:
            ValueError: the precision has no integers.
        """
        if precision in ("float32", "float16"):
            raise ValueError(f"{precision} has no integers to train for")
        weights = cls(weight_limit=_LIMITS.get(precision, 127), activation_bits=None)
        if rules is not None:
            weights = replace(
                weights,
                per_channel_convolutions=rules.per_channel_conv,
                per_channel_linear=rules.per_channel_linear,
            )
        if precision == "int8-dynamic" and isinstance(rules, OnnxRules):
            return replace(
                weights,
                weight_limit=_REDUCED_UNSIGNED_LIMIT if rules.reduce_range else 127,
                asymmetric_weights=True,
                per_channel_convolutions=False,
                per_channel_linear=rules.per_channel_conv,
            )
        if precision not in ("int8", "int8-int16") or rules is None:
            return weights
        bits = 16 if precision == "int8-int16" else 8
        static = replace(
            weights, activation_bits=bits, symmetric_activations=rules.activation_symmetric
        )
        if isinstance(rules, TfliteRules):
            symmetric = rules.activation_symmetric or bits == 16
            return replace(static, symmetric_activations=symmetric, quantized_outputs=True)
        return replace(
            static,
            weight_limit=_REDUCED_LIMIT if rules.reduce_range else 127,
            rounded_biases=rules.quantize_bias and bits == 8,
            fused_additions=rules.profile == "tensorrt",
        )
