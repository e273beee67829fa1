"""Latency as a function of kept widths: a measured grid for every layer, interpolated between.

A network's latency is taken as a sum over its layers, as in the lookup tables of NetAdapt
(Yang et al. 2018, https://arxiv.org/abs/1804.03230) and ProxylessNAS (Cai et al. 2019,
https://arxiv.org/abs/1812.00332), times one factor that makes it agree with a measured network.
The tables are measured elsewhere; this module knows no runtime.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compressor.graph import ChannelGraph
from compressor.graph.channel_graph import FIXED_CLASS, Classes, Geometry

Grid = NDArray[np.float64]

MAX_WIDTHS, FEW_WIDTHS = 16, 8
"""Where one axis has more than the first number of widths, just the second number is measured:
what matters are the steps of narrow layers. Between them the staircase is drawn as a line."""


@dataclass(frozen=True)
class LayerKey:
    """A layer and the widths at which it is measured, ascending; the last ones are its own.

    Attributes:
        geometry: what it computes, widths aside.
        inputs: one width where the layer's inputs can't shrink, or follow from its outputs.
        outputs: likewise.
    """

    geometry: Geometry
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@dataclass(frozen=True)
class TimedLayer:
    """A layer, or an operation between layers, of one network.

    Attributes:
        name: of the module or operation.
        key: where its latency stands in a table.
        in_classes: class of every input channel, as far as the latency depends on them apart from
            the outputs.
        out_classes: class of every output channel.
        calls: how often it runs for one image.
    """

    name: str
    key: LayerKey
    in_classes: Classes
    out_classes: Classes
    calls: int


@dataclass(frozen=True)
class LatencyTable:
    """Measured milliseconds of the layers of a network in one runtime.

    Attributes:
        name: of the file format, for people.
        channel_step: multiple that measured widths are rounded to.
        grids: layer -> measured milliseconds, shape (inputs, outputs).
        run_ms: of one run beside the layers.
        scale: factor on the sum of all of it.
    """

    name: str
    channel_step: int
    grids: Mapping[LayerKey, Grid]
    run_ms: float
    scale: float = 1.0

    def __post_init__(self) -> None:
        for key, grid in self.grids.items():
            if grid.shape != (len(key.inputs), len(key.outputs)):
                raise ValueError(f"{key} has a grid of shape {grid.shape}")
            if not (np.isfinite(grid).all() and (grid >= 0).all()):
                raise ValueError(f"{key}: a latency is negative or not finite")

    def scaled(self, factor: float) -> LatencyTable:
        """Return the table with all latencies times a factor."""
        return replace(self, scale=self.scale * factor)


class LatencyCost:
    """One table applied to one network: milliseconds, differentiable in the keep probabilities.

    Latency is interpolated bilinearly at the expected widths, linear down to nothing for a layer
    without channels. A hard choice costs what was measured, exactly at measured widths; keep
    probabilities cost the `envelope` of it, which rises along both axes, so that no gradient asks
    for more channels.

    Args:
        graph: the network's.
        table: measured for it.

    Raises:
        ValueError: the table was not measured for this network.
    """

    def __init__(self, graph: ChannelGraph, table: LatencyTable) -> None:
        layers = timed_layers(graph, table.channel_step)
        missing = [layer.name for layer in layers if layer.key not in table.grids]
        if missing:
            raise ValueError(f"the latency table '{table.name}' lacks {', '.join(missing)}")
        self._inputs = _Axis([layer.key.inputs for layer in layers])
        self._outputs = _Axis([layer.key.outputs for layer in layers])
        self._in_counts = counts([layer.in_classes for layer in layers], graph.class_count)
        self._out_counts = counts([layer.out_classes for layer in layers], graph.class_count)
        depth, width = self._inputs.bounds.shape[1], self._outputs.bounds.shape[1]
        # (as measured or envelope, layers, inputs, outputs); each axis begins with a width of 0
        values = np.zeros((2, len(layers), depth, width))
        for row, layer in enumerate(layers):
            grid = table.grids[layer.key] * layer.calls
            for index, surface in enumerate((grid, envelope(grid))):
                values[index, row, 1 : 1 + grid.shape[0], 1 : 1 + grid.shape[1]] = surface
        self._measured, self._envelope = torch.from_numpy(values).reshape(2, -1) * table.scale
        self._first = torch.arange(len(layers)) * depth * width
        self._row_length = width
        self._corners = torch.tensor([0, 1, width, width + 1])
        self._run_ms = table.run_ms * table.scale
        self._names = tuple(layer.name for layer in layers)

    def milliseconds(self, keep: Tensor) -> Tensor:
        """Return the latency; keep has shape (class_count + 1,), the last one for fixed ones."""
        return self._layers(keep).sum() + self._run_ms

    def by_layer(self, keep: Tensor) -> dict[str, float]:
        """Return milliseconds of every layer and operation; keep as above."""
        return dict(zip(self._names, self._layers(keep).tolist(), strict=True))

    def _layers(self, keep: Tensor) -> Tensor:
        low, down = self._inputs.locate(self._in_counts @ keep)
        left, right = self._outputs.locate(self._out_counts @ keep)
        near = self._first + low * self._row_length + left
        hard = not keep.requires_grad and bool(((keep == 0) | (keep == 1)).all())
        surface = self._measured if hard else self._envelope
        corners = surface[near[:, None] + self._corners]  # (layers, 4)
        up, back = 1 - down, 1 - right
        shares = torch.stack((up * back, up * right, down * back, down * right), dim=1)
        return (corners * shares).sum(dim=1)


class _Axis:
    """Ascending widths of every layer, from 0 on, padded to equal length."""

    def __init__(self, widths: list[tuple[int, ...]]) -> None:
        most = max((len(row) for row in widths), default=1)
        padded = [
            (0, *row, *(row[-1] + 1 + extra for extra in range(most - len(row)))) for row in widths
        ]
        self.bounds = torch.tensor(padded, dtype=torch.float64).reshape(len(widths), most + 1)
        self._row = torch.arange(len(widths))
        self._last_cell = torch.tensor([len(row) - 1 for row in widths])

    def locate(self, at: Tensor) -> tuple[Tensor, Tensor]:
        """Return the cell that holds each width, and how far into it the width lies (0..1)."""
        found = torch.searchsorted(self.bounds, at.detach()[:, None].contiguous(), right=True)
        cell = torch.minimum(found[:, 0] - 1, self._last_cell)
        low, high = self.bounds[self._row, cell], self.bounds[self._row, cell + 1]
        return cell, (at - low) / (high - low)


def timed_layers(graph: ChannelGraph, channel_step: int) -> tuple[TimedLayer, ...]:
    """Return all that takes time in a network: layers, and what moves feature maps between them.

    Layers without a `Geometry` (other than two-dimensional) are left out.

    Args:
        graph: the network's.
        channel_step: multiple that kept widths are rounded to.
    """
    steps = _class_steps(graph, channel_step)
    found = []
    for layer in graph.layers:
        if layer.geometry is None:
            continue
        inputs = layer.in_classes
        if layer.geometry.kind == "depthwise":
            inputs = _fixed(len(inputs))  # the outputs say it all
        key = LayerKey(
            layer.geometry, _widths_of(inputs, steps), _widths_of(layer.out_classes, steps)
        )
        found.append(TimedLayer(layer.module, key, inputs, layer.out_classes, layer.calls))
    for entry in graph.feature_maps:
        if entry.made_by != "elementwise":
            continue
        size = (entry.elements_per_channel, 1)
        geometry = Geometry("elementwise", (1, 1), (1, 1), (0, 0), (1, 1), size, 1)
        inputs = _fixed(len(entry.classes))
        key = LayerKey(geometry, _widths_of(inputs, steps), _widths_of(entry.classes, steps))
        found.append(TimedLayer(entry.name, key, inputs, entry.classes, 1))
    return tuple(found)


def _class_steps(graph: ChannelGraph, channel_step: int) -> NDArray[np.int64]:
    """Return by how many classes the width of every class's group moves, shape (class_count,)."""
    from compressor.decore.projection import class_step  # which needs the costs, which need this

    steps = np.ones(graph.class_count, dtype=np.int64)
    for group in graph.groups:
        steps[group.classes] = class_step(group, channel_step)
    return steps


def _widths_of(classes: Classes, steps: NDArray[np.int64]) -> tuple[int, ...]:
    free, channels = np.unique(classes[classes != FIXED_CLASS], return_counts=True)
    if len(free) == 0:
        return (len(classes),)
    # Where groups lie side by side, the one with the smallest steps decides.
    return measured_widths(len(classes), int((steps[free] * channels).min()))


def measured_widths(full: int, step: int) -> tuple[int, ...]:
    """Return the widths to measure: the multiples of a step, evenly thinned out where many."""
    multiples = [*range(step, full, step), full]
    if len(multiples) <= MAX_WIDTHS:
        return tuple(multiples)
    places = np.linspace(0, len(multiples) - 1, FEW_WIDTHS).round().astype(int)
    return tuple(multiples[place] for place in places)


def envelope(grid: Grid) -> Grid:
    """Return the least latency at which at least so many inputs and outputs can be had.

    A runtime may need longer for 12 channels than for 16. Who has room for 12 can keep 16, so here
    12 costs what 16 does. The result rises along both axes; a grid that does so already stays as
    it is.
    """
    for axis in (0, 1):
        grid = np.flip(np.minimum.accumulate(np.flip(grid, axis), axis=axis), axis)
    return grid


def counts(rows: list[Classes], class_count: int) -> Tensor:
    """Return how many channels of each class every row has; fixed ones in the last column."""
    found = np.zeros((len(rows), class_count + 1))
    for row, classes in enumerate(rows):
        columns = np.where(classes == FIXED_CLASS, class_count, classes)
        np.add.at(found[row], columns, 1.0)
    return torch.from_numpy(found)


def _fixed(count: int) -> Classes:
    return np.full(count, FIXED_CLASS, dtype=np.int64)
