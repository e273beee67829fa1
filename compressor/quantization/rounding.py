"""Layers and results of one forward pass, rounded as files round them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from torch import Tensor

from compressor.quantization.calls import Calls, answer, with_answer
from compressor.quantization.grid import (
    Grid,
    asymmetric_weight,
    rounded_bias,
    rounded_weight,
    weight_scales,
)
from compressor.quantization.points import LAYERS
from compressor.quantization.scheme import Scheme

AtLayer = Callable[[int, Tensor], Tensor]
"""Given the number of an operation and its result, before that is rounded; returns what to use."""


class Rounding(Calls):
    """Rounds the weights and biases of layers, and the results that have a grid.

    Args:
        grids: operation -> grid of its result.
        input_of: layer -> the operation that made its input.
        layer_of: folded norm, whose bias is its layer's -> that layer.
        left: layers whose weights and biases stay in float.
        at_layer: is handed the results of layers, folded norms included, before they are rounded.
    """

    def __init__(
        self,
        scheme: Scheme,
        grids: Mapping[int, Grid],
        input_of: Mapping[int, int],
        layer_of: Mapping[int, int],
        left: Collection[int] = (),
        at_layer: AtLayer | None = None,
    ) -> None:
        super().__init__()
        self._scheme, self._grids = scheme, grids
        self._input_of, self._layer_of = input_of, layer_of
        self._left, self._at_layer = left, at_layer
        self._bias_steps: dict[int, Tensor] = {}

    def call(self, number: int, name: str, run: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        if name in LAYERS:
            layer = _Arguments(_LAYER_ARGUMENTS, args, kwargs)
            if number not in self._left:
                self._round(number, name, layer)
            result = self._seen(number, layer.passed_to(run))
        elif number in self._layer_of:
            norm = _Arguments(_NORM_ARGUMENTS, args, kwargs)
            self._round_bias(norm, self._layer_of[number])
            result = self._seen(number, norm.passed_to(run))
        else:
            result = run(*args, **kwargs)
        grid, x = self._grids.get(number), answer(result)
        return result if grid is None or x is None else with_answer(result, grid.rounded(x))

    def _round(self, number: int, name: str, layer: _Arguments) -> None:
        scheme, weight = self._scheme, layer.named["weight"]
        alone = scheme.per_channel_linear if name == "linear" else scheme.per_channel_convolutions
        axis = _channel_axis(name, layer) if alone else None
        if scheme.asymmetric_weights:
            if name != "conv_transpose2d":
                layer.named["weight"] = asymmetric_weight(weight, scheme.weight_limit, axis)
            return
        scales = weight_scales(weight, scheme.weight_limit, axis)
        layer.named["weight"] = rounded_weight(weight, scales, scheme.weight_limit, axis)
        grid = self._grids.get(self._input_of[number]) if number in self._input_of else None
        if grid is not None and scheme.rounded_biases:
            self._bias_steps[number] = scales * grid.scale
        self._round_bias(layer, number)

    def _seen(self, number: int, result: Tensor) -> Tensor:
        return result if self._at_layer is None else self._at_layer(number, result)

    def _round_bias(self, arguments: _Arguments, layer: int) -> None:
        bias, steps = arguments.named["bias"], self._bias_steps.get(layer)
        if bias is not None and steps is not None:
            arguments.named["bias"] = rounded_bias(bias, steps)


def _channel_axis(name: str, layer: _Arguments) -> int | None:
    """Axis of the outputs in a weight; None where it counts those of one group alone.

    So does `exporters.onnx_weights.channel_axis`.
    """
    return None if name == "conv_transpose2d" and layer.other("groups", 6, 1) > 1 else LAYERS[name]


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

    def other(self, name: str, place: int, default: Any) -> Any:
        """Return an argument that isn't replaced, by its name or its place among all of them."""
        place -= len(self.named)
        return self._more[place] if place < len(self._more) else self._others.get(name, default)

    def passed_to(self, run: Callable[..., Any]) -> Any:
        """Return what a function returns for these arguments."""
        return run(*self.named.values(), *self._more, **self._others)
