"""Latency tables as a cost: exact at measured widths, rising gradients, limits in milliseconds."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from compressor.cost import Limits, NetworkCosts, as_tensor
from compressor.decore.projection import TargetError, class_step, project
from compressor.graph import ChannelGraph, Keep, channel_graph
from compressor.graph.channel_graph import kept_indices
from compressor.latency import (
    FEW_WIDTHS,
    MAX_WIDTHS,
    LatencyCost,
    LatencyTable,
    LayerKey,
    envelope,
    measured_widths,
    timed_layers,
)
from compressor.models import build_model

STEP = 8


@cache
def graph_of(name: str) -> ChannelGraph:
    return channel_graph(build_model(name, 10), torch.zeros(1, 3, 32, 32))


def table_of(graph: ChannelGraph, milliseconds, name: str = "onnx") -> LatencyTable:
    """A table whose grid points are milliseconds(key, inputs, outputs)."""
    keys = {layer.key for layer in timed_layers(graph, STEP)}
    grids = {
        key: np.array([[milliseconds(key, i, o) for o in key.outputs] for i in key.inputs])
        for key in keys
    }
    return LatencyTable(name, STEP, grids, run_ms=0.5)


def linear_ms(key: LayerKey, inputs: int, outputs: int) -> float:
    """What a machine with one speed would need: bilinear, so interpolation is exact anywhere."""
    return 1e-3 * inputs * outputs * key.geometry.input_size[0]


def staircase_ms(key: LayerKey, inputs: int, outputs: int) -> float:
    """A machine that computes 8 channels at a time."""
    return linear_ms(key, -(-inputs // 8) * 8, -(-outputs // 8) * 8)


def bumpy_ms(key: LayerKey, inputs: int, outputs: int) -> float:
    """A machine that is slow where widths are no multiples of 8."""
    slow = 1.5 if inputs % 8 or outputs % 8 else 1.0
    return slow * staircase_ms(key, inputs, outputs)


def by_hand(graph: ChannelGraph, keep, milliseconds) -> float:
    total = 0.5
    for layer in timed_layers(graph, STEP):
        inputs, outputs = (
            len(kept_indices(classes, keep)) for classes in (layer.in_classes, layer.out_classes)
        )
        if inputs and outputs:
            total += layer.calls * milliseconds(layer.key, inputs, outputs)
    return total


def keep_on_steps(graph: ChannelGraph, seed: int) -> Keep:
    """A keep set whose widths are those that the search may choose, emptied groups among them."""
    generator = np.random.default_rng(seed)
    keep = np.zeros(graph.class_count, dtype=np.bool_)
    for group in graph.groups:
        step = class_step(group, STEP)
        choices = [*range(step, len(group.classes), step), len(group.classes)]
        empty = group.removable and generator.random() < 0.2
        keep[group.classes[: 0 if empty else generator.choice(choices)]] = True
    return keep


@settings(max_examples=20)
@given(seed=st.integers(0, 10_000), shape=st.sampled_from([linear_ms, staircase_ms, bumpy_ms]))
def test_exact_at_measured_widths(seed: int, shape) -> None:
    for name in ("resnet20", "mobilenet_v3_small"):
        graph = graph_of(name)
        keep = keep_on_steps(graph, seed)
        costs = NetworkCosts(graph, latency=[table_of(graph, shape)])
        found = float(costs.latency_ms(as_tensor(keep)))
        assert found == pytest.approx(by_hand(graph, keep, shape), rel=1e-12)


@settings(max_examples=20)
@given(seed=st.integers(0, 10_000))
def test_between_measured_widths_a_line(seed: int) -> None:
    graph = graph_of("resnet20")
    keep = np.random.default_rng(seed).random(graph.class_count) < 0.6
    costs = NetworkCosts(graph, latency=[table_of(graph, linear_ms)])
    found = float(costs.latency_ms(as_tensor(keep)))
    assert found == pytest.approx(by_hand(graph, keep, linear_ms), rel=1e-12)


@settings(max_examples=20)
@given(seed=st.integers(0, 10_000), shape=st.sampled_from([linear_ms, staircase_ms, bumpy_ms]))
def test_gradients_never_ask_for_channels(seed: int, shape) -> None:
    graph = graph_of("resnet20")
    costs = NetworkCosts(graph, latency=[table_of(graph, shape)])
    torch.manual_seed(seed)
    p = torch.rand(graph.class_count, dtype=torch.float64).requires_grad_()
    (gradient,) = torch.autograd.grad(costs.latency_ms(p), p)
    assert bool((gradient >= 0).all())
    assert bool((gradient > 0).any())
    more = (p.detach() + 0.1 * torch.rand_like(p.detach())).clamp_max(1 - 1e-9)
    assert float(costs.latency_ms(more)) >= float(costs.latency_ms(p.detach())) - 1e-9
    index = seed % graph.class_count
    step = torch.zeros_like(more)
    step[index] = 1e-7
    rise = (costs.latency_ms(p.detach() + step) - costs.latency_ms(p.detach())) / 1e-7
    assert float(rise) == pytest.approx(float(gradient[index]), rel=1e-3, abs=1e-5)


def test_gradient_at_the_whole_network_is_not_that_of_the_bumps() -> None:
    """12 channels cost more than 16 here, and still dropping one must not look dear."""
    graph = graph_of("resnet20")
    costs = NetworkCosts(graph, latency=[table_of(graph, bumpy_ms)])
    everything = as_tensor(graph.all_kept()).requires_grad_()
    (gradient,) = torch.autograd.grad(costs.latency_ms(everything), everything)
    assert bool((gradient >= 0).all())


@given(
    st.lists(st.lists(st.floats(0, 10), min_size=4, max_size=4), min_size=1, max_size=5).map(
        np.array
    )
)
def test_envelope(grid) -> None:
    found = envelope(grid)
    assert (found <= grid).all()
    for i in range(grid.shape[0]):
        for j in range(grid.shape[1]):
            assert found[i, j] == grid[i:, j:].min()
    np.testing.assert_array_equal(envelope(found), found)


@given(full=st.integers(1, 4096), step=st.integers(1, 32))
def test_measured_widths(full: int, step: int) -> None:
    widths = measured_widths(full, step)
    multiples = [*range(step, full, step), full]
    assert set(widths) <= set(multiples)
    assert (widths[0], widths[-1]) == (multiples[0], full)
    if len(multiples) <= MAX_WIDTHS:
        assert list(widths) == multiples
    else:
        assert len(set(widths)) == FEW_WIDTHS
        gaps = np.diff(widths[:-1])
        assert gaps.max() - gaps.min() <= step


def test_timed_layers_of_a_network() -> None:
    found = {layer.name: layer.key for layer in timed_layers(graph_of("resnet20"), STEP)}
    assert found["conv1"].inputs == (3,)
    assert found["conv1"].outputs == (4, 8, 12, 16)
    strided = found["layer2.0.conv1"]
    assert (strided.geometry.stride, strided.geometry.input_size) == ((2, 2), (32, 32))
    assert strided.outputs == (8, 16, 24, 32)
    assert (found["linear"].inputs[-1], found["linear"].outputs) == (64, (10,))
    assert found["linear"].geometry.kind == "linear"
    additions = [key for key in found.values() if key.geometry.kind == "elementwise"]
    # nine additions, two shortcuts and the pool; equal ones are one entry of a table
    assert len(additions) == 12
    assert additions[0].inputs == (16,)
    depthwise = timed_layers(graph_of("mobilenet_v2"), STEP)[1].key
    assert depthwise.geometry.kind == "depthwise"
    assert (depthwise.inputs, depthwise.outputs[-1]) == ((32,), 32)


def test_geometry_of_unusual_layers() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 8, (3, 5), padding="same"),
        nn.Conv2d(8, 16, 3, (2, 1), groups=4, dilation=2),
        nn.ConvTranspose2d(16, 8, 2, stride=2),
        nn.Conv2d(8, 8, 1),
    )
    layers = {layer.module: layer for layer in channel_graph(model, torch.zeros(1, 3, 9, 9)).layers}
    first, grouped, transposed = (layers[name].geometry for name in "012")
    assert first is not None and grouped is not None
    assert (first.padding, first.kernel, first.input_size) == ((1, 2), (3, 5), (9, 9))
    assert (grouped.groups, grouped.dilation, grouped.stride) == (4, (2, 2), (2, 1))
    assert transposed is None
    timed = {
        layer.name: layer.key
        for layer in timed_layers(channel_graph(model, torch.zeros(1, 3, 9, 9)), STEP)
    }
    assert "2" not in timed
    assert all(width % 4 == 0 for width in timed["1"].inputs)


def test_shared_layers_cost_every_call() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.conv = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, padding=1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.conv(self.conv(self.stem(x)))

    graph = channel_graph(Twice(), torch.zeros(1, 3, 8, 8))
    calls = {layer.name: layer.calls for layer in timed_layers(graph, STEP)}
    assert calls == {"stem": 1, "conv": 2}


def test_the_slowest_format_counts() -> None:
    graph = graph_of("resnet20")
    fast = table_of(graph, linear_ms)
    slow = table_of(graph, lambda key, i, o: 2 * linear_ms(key, i, o), "tflite")
    whole = as_tensor(graph.all_kept())
    costs = NetworkCosts(graph, latency=[fast, slow])
    one, other = costs.latencies_ms(whole).tolist()
    assert other == pytest.approx(2 * one - 0.5)
    assert float(costs.latency_ms(whole)) == other
    calibrated = costs.calibrated(whole, [30.0, 20.0])
    assert calibrated.latencies_ms(whole).tolist() == pytest.approx([30.0, 20.0])
    assert float(calibrated.latency_ms(whole)) == pytest.approx(30.0)
    assert float(costs.latency_ms(whole)) == other  # the costs that were given stay
    half = as_tensor(keep_on_steps(graph, 3))
    ratio = calibrated.latencies_ms(half) / costs.latencies_ms(half)
    assert ratio.tolist() == pytest.approx([30.0 / one, 20.0 / other])


@pytest.mark.parametrize("share", [0.5, 0.7])
@pytest.mark.parametrize("shape", [linear_ms, staircase_ms, bumpy_ms])
def test_limits_in_milliseconds(shape, share: float) -> None:
    graph = graph_of("resnet20")
    costs = NetworkCosts(graph, latency=[table_of(graph, shape)])
    wanted = share * float(costs.latency_ms(as_tensor(graph.all_kept())))
    ranking = np.random.default_rng(0).normal(size=graph.class_count)
    limits = Limits(costs, {"latency_ms": wanted})
    keep = project(ranking, graph, limits, STEP)
    assert by_hand(graph, keep, shape) <= wanted
    assert limits.ratios(as_tensor(keep))["latency_ms"] == pytest.approx(
        by_hand(graph, keep, shape) / wanted
    )
    with pytest.raises(TargetError, match="latency_ms is"):
        project(ranking, graph, Limits(costs, {"latency_ms": 0.1}), STEP)


def test_tables_of_another_network_or_without_sense_are_refused() -> None:
    table = table_of(graph_of("resnet20"), linear_ms)
    with pytest.raises(ValueError, match="the latency table 'onnx' lacks .*layer1.0.conv1"):
        LatencyCost(graph_of("resnet18"), table)
    with pytest.raises(ValueError, match="needs a latency table"):
        NetworkCosts(graph_of("resnet20")).latency_ms(torch.ones(1))
    key = next(iter(table.grids))
    with pytest.raises(ValueError, match="negative or not finite"):
        replace(table, grids={key: np.full((len(key.inputs), len(key.outputs)), np.nan)})
    with pytest.raises(ValueError, match="grid of shape"):
        replace(table, grids={key: np.zeros((9, 9))})


def test_the_report_by_layer_adds_up() -> None:
    graph = graph_of("resnet20")
    cost = LatencyCost(graph, table_of(graph, linear_ms))
    keep = torch.ones(graph.class_count + 1, dtype=torch.float64)
    assert sum(cost.by_layer(keep).values()) + 0.5 == pytest.approx(float(cost.milliseconds(keep)))
