"""How files of a precision store numbers, as far as training has to know it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Scheme:
    """Integer grids of weights and activations.

    Weights are symmetric (zero point 0) and use -q to q; so do symmetric activations. Other
    activations use all 2**bits values and a zero point.

    Attributes:
        weight_bits: of every weight of a convolution or linear layer.
        activation_bits: of what operators hand on; None leaves activations in float.
        symmetric_activations: zero point 0.
        per_channel_convolutions, per_channel_linear: one scale for each output channel instead of
            one for the whole weight.
        rounded_biases: biases are 32-bit integers in steps of the input's scale times the weight's,
            where activations are integers; otherwise they stay exact.
        quantized_outputs: whether the network's own outputs are rounded, too.
    """

    weight_bits: int = 8
    activation_bits: int | None = 8
    symmetric_activations: bool = False
    per_channel_convolutions: bool = True
    per_channel_linear: bool = True
    rounded_biases: bool = True
    quantized_outputs: bool = False

    def __post_init__(self) -> None:
        if not 2 <= self.weight_bits <= 8:
            raise ValueError(f"weight_bits is {self.weight_bits}, must be 2 to 8")
        if self.activation_bits not in (None, 8, 16):
            raise ValueError(f"activation_bits is {self.activation_bits}, must be 8, 16 or None")

    @property
    def weight_limit(self) -> int:
        """Largest integer of a weight; the smallest is its negative."""
        return 2 ** (self.weight_bits - 1) - 1
