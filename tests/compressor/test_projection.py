"""From a ranking to a hard choice within limits and on the board's steps."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compressor.cost import Limits, NetworkCosts, as_tensor
from compressor.decore.projection import TargetError, class_step, project, thresholded
from compressor.graph import ChannelGraph, Group, channel_graph
from compressor.models import build_model


@cache
def graph_and_costs(name: str) -> tuple[ChannelGraph, NetworkCosts]:
    graph = channel_graph(build_model(name, 10), torch.randn(1, 3, 32, 32))
    return graph, NetworkCosts(graph)


def limits_at(name: str, **shares: float) -> Limits:
    _, costs = graph_and_costs(name)
    whole = torch.ones(graph_and_costs(name)[0].class_count, dtype=torch.float64)
    return Limits(costs, {cost: s * float(costs.value(cost, whole)) for cost, s in shares.items()})


def group(width: int, multiplicity: int = 1, removable: bool = False) -> Group:
    return Group("g", np.arange(width), multiplicity, removable, ("g",))


@pytest.mark.parametrize(
    ("width", "multiplicity", "channel_step", "expected"),
    [
        (64, 1, 16, 16),  # exactly four choices
        (63, 1, 16, 15),  # narrower than four steps: the largest that leaves four
        (32, 1, 16, 8),
        (16, 1, 16, 4),
        (16, 1, 8, 4),
        (5, 1, 8, 1),
        (3, 1, 8, 1),
        (1, 1, 8, 1),
        (64, 1, 1, 1),
        (24, 4, 16, 4),  # one class stands for four channels
        (64, 32, 16, 1),
    ],
)
def test_step_of_a_group(width: int, multiplicity: int, channel_step: int, expected: int) -> None:
    assert class_step(group(width, multiplicity), channel_step) == expected


def assert_on_steps(keep, graph: ChannelGraph, ranking, channel_step: int) -> None:
    for entry in graph.groups:
        width, full = int(keep[entry.classes].sum()), len(entry.classes)
        assert width == full or width % class_step(entry, channel_step) == 0
        assert width > 0 or entry.removable
        # the best of the group stay
        kept, dropped = entry.classes[keep[entry.classes]], entry.classes[~keep[entry.classes]]
        if len(kept) and len(dropped):
            assert ranking[kept].min() >= ranking[dropped].max()


@settings(max_examples=40)
@given(
    name=st.sampled_from(["resnet20", "mobilenet_v3_small", "shufflenet_v2_x1_0"]),
    share=st.floats(0.2, 1.2),
    bytes_share=st.floats(0.2, 1.2),
    channel_step=st.sampled_from([1, 4, 8, 16]),
    seed=st.integers(0, 1000),
)
def test_projection_meets_limits_on_steps(name, share, bytes_share, channel_step, seed) -> None:
    graph, _ = graph_and_costs(name)
    limits = limits_at(name, macs=share, weight_bytes=bytes_share)
    ranking = np.random.default_rng(seed).normal(size=graph.class_count)
    try:
        keep = project(ranking, graph, limits, channel_step)
    except TargetError:
        smallest = np.zeros(graph.class_count, dtype=np.bool_)
        for entry in graph.groups:
            best_first = entry.classes[np.argsort(-ranking[entry.classes])]
            step = class_step(entry, channel_step)
            smallest[best_first[: 0 if entry.removable else step]] = True
        assert float(limits.load(as_tensor(smallest))) > 1
        return
    assert float(limits.load(as_tensor(keep))) <= 1
    assert_on_steps(keep, graph, ranking, channel_step)
    if min(share, bytes_share) >= 1:
        assert keep.all()


def test_nothing_more_fits() -> None:
    """No group that is alive can grow by a step."""
    graph, _ = graph_and_costs("resnet20")
    limits = limits_at("resnet20", macs=0.5)
    ranking = np.random.default_rng(0).normal(size=graph.class_count)
    keep = project(ranking, graph, limits, 4)
    assert 0.45 < float(limits.load(as_tensor(keep))) <= 1
    for entry in graph.groups:
        order = entry.classes[np.argsort(-ranking[entry.classes])]
        width = int(keep[order].sum())
        if 0 < width < len(order):
            wider = keep.copy()
            wider[order[width : width + class_step(entry, 4)]] = True
            assert float(limits.load(as_tensor(wider))) > 1


def test_last_partial_step_leaves_no_gap() -> None:
    """18 wide in steps of 4: after 12 -> 16 didn't fit, 16 -> 18 must not be taken alone."""
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 18, 1), torch.nn.Conv2d(18, 2, 1))
    graph = channel_graph(model, torch.randn(1, 3, 4, 4))
    costs = NetworkCosts(graph)
    fourteen = torch.zeros(18, dtype=torch.float64)
    fourteen[:14] = 1
    limits = Limits(costs, {"macs": float(costs.macs(fourteen))})
    keep = project(np.arange(18, 0, -1).astype(float), graph, limits, 8)
    assert keep.tolist() == [True] * 12 + [False] * 6


def test_target_that_no_net_meets() -> None:
    graph, _ = graph_and_costs("resnet20")
    limits = limits_at("resnet20", macs=1e-4, weight_bytes=2.0)
    with pytest.raises(TargetError, match=r"macs is [\d.]+ times its limit") as caught:
        project(np.zeros(graph.class_count), graph, limits, 8)
    assert caught.value.worst_ratio is not None
    assert caught.value.worst_ratio > 1
    assert "weight_bytes" not in str(caught.value)


def test_threshold_keeps_the_likeliest_where_a_group_must_not_be_empty() -> None:
    graph, _ = graph_and_costs("resnet20")
    p = np.full(graph.class_count, 0.4)
    p[graph.groups[0].classes[3]] = 0.49
    keep = thresholded(p, graph)
    assert np.flatnonzero(keep[graph.groups[0].classes]).tolist() == [3]
    for entry in graph.groups:
        assert int(keep[entry.classes].sum()) == (0 if entry.removable else 1)
    p[:] = 0.5
    assert thresholded(p, graph).all()  # "drop p < 0.5"
