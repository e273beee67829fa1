"""A network that answers as its quantized file will, and can be trained so."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import partial
from typing import Any

from torch import Tensor, nn

from compressor.quantization.calls import written
from compressor.quantization.grid import Grid
from compressor.quantization.layers import Layer, named_layers
from compressor.quantization.neutral import fold_norms
from compressor.quantization.observing import Calibration, FindRanges, extremes, ranges_by
from compressor.quantization.points import (
    INPUT,
    folded_norms,
    inputs_of_layers,
    rounded_beside,
    rounded_results,
)
from compressor.quantization.rounding import AtLayer, Rounding
from compressor.quantization.scheme import Scheme

_FIXED_IN_TFLITE = frozenset({"sigmoid", "softmax", "tanh"})
"""Whose results have one grid by TFLite's specification, whatever calibration finds."""


class FakeQuantized(nn.Module):
    """Rounds weights and activations where files do, with the files' own scales.

    Ranges of activations are not learned: they are those of the float network over the calibration
    samples, as in the files, and are measured anew when the mode is set and weights have changed
    since. So nothing that was learned is lost on the way into a file.

    The network stays in eval mode (batch norms fixed, dropout off) also while it trains; its batch
    norms are folded in place (`neutral.fold_norms`).

    Args:
        network: trained, any CNN; it is trained in place.
        scheme: what the files will hold.
        calibration: the samples that the files will be calibrated with; not read where activations
            stay in float.
        example: one input, shape (1, C, H, W).
        find: the files' method of calibration; minima and maxima by default.

    Attributes:
        layers: by name, those that are called once with a weight of their own.
    """

    def __init__(
        self,
        network: nn.Module,
        scheme: Scheme,
        calibration: Calibration,
        example: Tensor,
        find: FindRanges | None = None,
    ) -> None:
        super().__init__()
        self.network = network.eval()
        self._scheme, self._calibration, self._find = scheme, calibration, find
        calls, outputs = written(network, example)
        pairs = folded_norms(network, calls, outputs)
        fold_norms(network, pairs)
        self.layers: Mapping[str, Layer] = {
            layer.name: layer for layer in named_layers(network, calls, pairs)
        }
        self._layer_of = {pair.norm_call: pair.layer_call for pair in pairs}
        self._input_of = inputs_of_layers(calls)
        self._points: set[int] = set()
        self._unclipped: set[int] = set()
        if scheme.activation_bits is not None:
            rounded = partial(
                rounded_results, calls, outputs, fused_additions=scheme.fused_additions
            )
            self._points = rounded(outputs_too=scheme.quantized_outputs)
            self._unclipped = self._points - rounded(outputs_too=False)
            if scheme.quantized_outputs:
                self._unclipped |= {
                    n for n in self._points - {INPUT} if calls[n].name in _FIXED_IN_TFLITE
                }
        self._grids: Mapping[int, Grid] = {}
        self._measured: tuple[int, ...] | None = None
        self._calls = calls
        self._left: frozenset[str] = frozenset()

    @property
    def scheme(self) -> Scheme:
        """How everything is rounded."""
        return self._scheme

    @property
    def float_layers(self) -> frozenset[str]:
        """Names of layers that are left in float; none at first, may be set at any time.

        Weights and biases of these are not rounded, nor is what they hand on to each other. What an
        operator on integers hands to them or reads from them is.
        """
        return self._left

    @float_layers.setter
    def float_layers(self, names: Collection[str]) -> None:
        strange = sorted(set(names) - set(self.layers))
        if strange:
            raise ValueError(f"no layer is called {strange[0]!r}: it is none of {[*self.layers]}")
        self._left = frozenset(names)

    def forward(self, x: Tensor, at_layer: AtLayer | None = None) -> Any:
        """Return the network's answers with everything rounded that files round.

        Args:
            at_layer: sees the results of layers before they are rounded, and may change them.

        Raises:
            RuntimeError: no mode was set since the network was made: there are no ranges yet.
        """
        if self._points and not self._grids:
            raise RuntimeError("call train() or eval() first: ranges are measured there")
        left = {self.layers[name].call for name in self._left}
        grids = self._grids
        if left and grids:
            scheme = self._scheme
            points = rounded_beside(self._calls, self._points, left, scheme.quantized_outputs)
            grids = {number: grid for number, grid in grids.items() if number in points}
        if INPUT in grids:
            x = grids[INPUT].rounded(x)
        with Rounding(self._scheme, grids, self._input_of, self._layer_of, left, at_layer):
            return self.network(x)

    def train(self, mode: bool = True) -> FakeQuantized:
        """Set the mode; the network itself stays in eval mode. Measures ranges."""
        self.training = mode
        tensors = (*self.network.parameters(), *self.network.buffers())
        versions = tuple(tensor._version for tensor in tensors)
        if self._points and versions != self._measured:
            self._grids = self._measure()
            self._measured = versions
        return self

    def _measure(self) -> Mapping[int, Grid]:
        """Return the grid of every rounded result, by number, from the float network's ranges."""
        bits, network, points = self._scheme.activation_bits, self.network, self._points
        assert bits is not None
        symmetric = self._scheme.symmetric_activations
        if self._find is None:
            ranges = extremes(network, points, self._calibration)
        else:
            ranges = ranges_by(
                self._find,
                network,
                points,
                self._unclipped,
                self._calibration,
                bits,
                symmetric=symmetric,
            )
        return {
            number: Grid.of_range(low, high, bits, symmetric=symmetric)
            for number, (low, high) in ranges.items()
        }
