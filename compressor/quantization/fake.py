"""A network that answers as its quantized file will, and can be trained so."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from compressor.quantization.calls import Calls, written
from compressor.quantization.grid import Grid, rounded_bias, rounded_weight, weight_scales
from compressor.quantization.neutral import fold_norms
from compressor.quantization.points import (
    INPUT,
    LAYERS,
    folded_norms,
    inputs_of_layers,
    rounded_results,
)
from compressor.quantization.scheme import Scheme

Calibration = Callable[[], Iterable[Tensor]]
"""Starts the stream of calibration batches, float32 (N, C, H, W), anew."""


class FakeQuantized(nn.Module):
    """Rounds weights and activations where files do, with the files' own scales.

    Ranges of activations are not learned: they are the minima and maxima of the float network over
    the calibration samples, as in the files, and are measured anew when the mode is set and weights
    have changed since. So nothing that was learned is lost on the way into a file.

    The network stays in eval mode (batch norms fixed, dropout off) also while it trains; its batch
    norms are folded in place (`neutral.fold_norms`).

    Args:
        network: trained, any CNN; it is trained in place.
        scheme: what the files will hold.
        calibration: the samples that the files will be calibrated with; not read where activations
            stay in float.
        example: one input, shape (1, C, H, W).
    """

    def __init__(
        self, network: nn.Module, scheme: Scheme, calibration: Calibration, example: Tensor
    ) -> None:
        super().__init__()
        self.network = network.eval()
        self._scheme, self._calibration = scheme, calibration
        calls, outputs = written(network, example)
        pairs = folded_norms(network, calls)
        fold_norms(network, pairs)
        self._layer_of = {pair.norm_call: pair.layer_call for pair in pairs}
        self._input_of = inputs_of_layers(calls)
        self._points: set[int] = set()
        if scheme.activation_bits is not None:
            self._points = rounded_results(calls, outputs, outputs_too=scheme.quantized_outputs)
        self._grids: Mapping[int, Grid] = {}
        self._measured: tuple[int, ...] | None = None

    def forward(self, x: Tensor) -> Any:
        """Return the network's answers with everything rounded that files round.

        Raises:
            RuntimeError: no mode was set since the network was made: there are no ranges yet.
        """
        if self._points and not self._grids:
            raise RuntimeError("call train() or eval() first: ranges are measured there")
        if INPUT in self._grids:
            x = self._grids[INPUT].rounded(x)
        with _Rounding(self._scheme, self._grids, self._input_of, self._layer_of):
            return self.network(x)

    def train(self, mode: bool = True) -> FakeQuantized:
        """Set the mode; the network itself stays in eval mode. Measures ranges."""
        self.training = mode
        versions = tuple(p._version for p in self.network.parameters())
        if self._points and versions != self._measured:
            self._grids = self._measure()
            self._measured = versions
        return self

    @torch.no_grad()
    def _measure(self) -> Mapping[int, Grid]:
        """Return the grid of every rounded result, by number, from the float network's ranges."""
        ranges: dict[int, tuple[float, float]] = {}
        device = next(self.network.parameters()).device
        for x in self._calibration():
            x = x.to(device)
            _widen(ranges, INPUT, x)
            with _Watching(self._points, ranges):
                self.network(x)
        bits = self._scheme.activation_bits
        assert bits is not None
        symmetric = self._scheme.symmetric_activations or bits == 16
        return {
            number: Grid.of_range(low, high, bits, symmetric=symmetric)
            for number, (low, high) in ranges.items()
        }


class _Watching(Calls):
    """Widens the ranges of some results."""

    def __init__(self, points: set[int], ranges: dict[int, tuple[float, float]]) -> None:
        super().__init__()
        self._points, self._ranges = points, ranges

    def call(self, number: int, name: str, run: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        result = run(*args, **kwargs)
        if number in self._points and isinstance(result, Tensor):
            _widen(self._ranges, number, result)
        return result


class _Rounding(Calls):
    """Rounds the weights and biases of layers, and the results that have a grid.

    Args:
        grids: operation -> grid of its result.
        input_of: layer -> the operation that made its input.
        layer_of: folded norm, whose bias is its layer's -> that layer.
    """

    def __init__(
        self,
        scheme: Scheme,
        grids: Mapping[int, Grid],
        input_of: Mapping[int, int],
        layer_of: Mapping[int, int],
    ) -> None:
        super().__init__()
        self._scheme, self._grids = scheme, grids
        self._input_of, self._layer_of = input_of, layer_of
        self._bias_steps: dict[int, Tensor] = {}

    def call(self, number: int, name: str, run: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        if name in LAYERS:
            result = self._layer(number, name, _Arguments(_LAYER_ARGUMENTS, args, kwargs), run)
        elif number in self._layer_of:
            norm = _Arguments(_NORM_ARGUMENTS, args, kwargs)
            self._round_bias(norm, self._layer_of[number])
            result = norm.passed_to(run)
        else:
            result = run(*args, **kwargs)
        grid = self._grids.get(number)
        return result if grid is None else grid.rounded(result)

    def _layer(self, number: int, name: str, layer: _Arguments, run: Callable[..., Any]) -> Tensor:
        scheme, weight = self._scheme, layer.named["weight"]
        alone = scheme.per_channel_linear if name == "linear" else scheme.per_channel_convolutions
        axis = LAYERS[name] if alone else None
        scales = weight_scales(weight, scheme.weight_limit, axis)
        layer.named["weight"] = rounded_weight(weight, scales, scheme.weight_limit, axis)
        grid = self._grids.get(self._input_of[number]) if number in self._input_of else None
        if grid is not None and scheme.rounded_biases:
            self._bias_steps[number] = scales * grid.scale
        self._round_bias(layer, number)
        result: Tensor = layer.passed_to(run)
        return result

    def _round_bias(self, arguments: _Arguments, layer: int) -> None:
        bias, steps = arguments.named["bias"], self._bias_steps.get(layer)
        if bias is not None and steps is not None:
            arguments.named["bias"] = rounded_bias(bias, steps)


_LAYER_ARGUMENTS = ("input", "weight", "bias")
_NORM_ARGUMENTS = ("input", "running_mean", "running_var", "weight", "bias")


class _Arguments:
    """The arguments of a call, of which the first have names and may be replaced.

    Args:
        names: of the first arguments, however they were given.
    """

    def __init__(self, names: tuple[str, ...], args: tuple[Any, ...], kwargs: Any) -> None:
        given = dict(zip(names, args, strict=False)) | kwargs
        self.named = {name: given.pop(name, None) for name in names}
        self._more, self._others = args[len(names) :], given

    def passed_to(self, run: Callable[..., Any]) -> Any:
        """Return what a function returns for these arguments."""
        return run(*self.named.values(), *self._more, **self._others)


def _widen(ranges: dict[int, tuple[float, float]], number: int, x: Tensor) -> None:
    low, high = (float(v) for v in x.detach().aminmax())
    known = ranges.get(number, (low, high))
    ranges[number] = min(known[0], low), max(known[1], high)
