"""Networks that get smaller while they train: exact at every cut, momentum and numbers carried."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from channel_nets import randomize
from decore_toys import Notes, TinyNet, ToyImages
from torch import Tensor, nn

from compressor.checkpoint import Checkpoint
from compressor.compute import Compute
from compressor.cost import Limits, NetworkCosts, as_tensor
from compressor.decore.agents import GradientAgents
from compressor.decore.budget import BudgetSettings
from compressor.decore.projection import above_in_steps, class_step, project
from compressor.graph import ChannelGraph, Keep, channel_graph
from compressor.masks import ChannelMasks
from compressor.methods.agent_search import SearchResult, search
from compressor.methods.method import PruneTask
from compressor.models import build_model
from compressor.shrink import CouplingError, Shrinking, carry_momentum
from compressor.training import Recipe

CPU = Compute(torch.device("cpu"), mixed_precision=False)


def fewer(graph: ChannelGraph, keep: Keep, seed: int, *, empty: bool) -> Keep:
    """Drop a fifth of what is there at random, and every third removable group when asked."""
    rng = np.random.default_rng(seed)
    keep = keep & (rng.random(graph.class_count) < 0.8)
    for index, group in enumerate(graph.groups):
        if empty and group.removable and index % 3 == 0:
            keep[group.classes] = False
        elif not group.removable and not keep[group.classes].any():
            keep[group.classes[0]] = True
    return keep


@pytest.mark.parametrize("name", ["resnet20", "resnet18", "mobilenet_v2"])
def test_every_cut_is_exact_and_classes_keep_their_numbers(name: str) -> None:
    torch.manual_seed(0)
    model = randomize(build_model(name, 10)).double().eval()
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    graph = channel_graph(model, x[:1])
    left, keep = Shrinking.whole(model, graph), graph.all_kept()
    for step in range(3):
        keep = fewer(graph, keep, step, empty=step == 1)
        left = left.without(keep, x)
        with ChannelMasks(model, graph) as masks, torch.no_grad():
            masks.set(as_tensor(keep))
            expected = model(x)
        torch.testing.assert_close(left.model(x), expected, rtol=1e-9, atol=1e-9)
        assert left.difference < 1e-9
        assert np.flatnonzero(keep).tolist() == sorted(left.classes.tolist())
        here = as_tensor(left.graph.all_kept())
        macs = float(NetworkCosts(left.graph).macs(here))
        assert macs <= float(NetworkCosts(graph).macs(as_tensor(keep)))
    # A mask in the whole network's numbers means the same in what is left of it.
    further = fewer(graph, keep, 9, empty=False)
    with ChannelMasks(model, graph) as masks, torch.no_grad():
        masks.set(as_tensor(further))
        expected = model(x)
    with ChannelMasks(left.model, left.graph) as masks, torch.no_grad():
        masks.set(as_tensor(further[left.classes]))
        torch.testing.assert_close(left.model(x), expected, rtol=1e-9, atol=1e-9)


def test_a_step_after_the_cut_equals_the_masked_step() -> None:
    """Cutting between two steps of SGD changes nothing for what stays: momentum goes along."""
    torch.manual_seed(0)
    x, labels = ToyImages().x[:16].double(), ToyImages().labels[:16]
    model = randomize(TinyNet(width=8)).double().eval()  # fixed batch statistics
    graph = channel_graph(model, x[:1])
    keep = graph.all_kept()
    keep[[1, 4, 5]] = False

    def optimizer(of: torch.nn.Module) -> torch.optim.SGD:
        return torch.optim.SGD(of.parameters(), lr=0.1, momentum=0.9, nesterov=True)

    def step(of: torch.nn.Module, by: torch.optim.SGD) -> None:
        by.zero_grad()
        torch.nn.functional.cross_entropy(of(x), labels).backward()
        by.step()

    masked, first, twin = model, optimizer(model), copy.deepcopy(model)
    with ChannelMasks(masked, graph) as masks:
        masks.set(as_tensor(keep))
        step(masked, first)
        twin.load_state_dict(masked.state_dict())
        whole = Shrinking.whole(twin, graph)
        before = optimizer(whole.model)
        before.load_state_dict(copy.deepcopy(first.state_dict()))
        cut = whole.without(keep, x[:2])
        after = optimizer(cut.model)
        carry_momentum(whole, keep, cut, before, after)
        for _ in range(3):
            step(masked, first)
            step(cut.model, after)
        with torch.no_grad():
            torch.testing.assert_close(cut.model(x), masked(x), rtol=1e-9, atol=1e-9)
    assert after.param_groups[0]["momentum"] == 0.9


def test_widths_are_rounded_up_to_whole_steps() -> None:
    graph = channel_graph(build_model("resnet20", 10), torch.zeros(1, 3, 32, 32))
    scores = np.random.default_rng(0).random(graph.class_count)
    keep = above_in_steps(scores, graph, 8, threshold=0.7)
    for group in graph.groups:
        wanted, got = int((scores[group.classes] >= 0.7).sum()), int(keep[group.classes].sum())
        step = class_step(group, 8)
        assert wanted <= got < wanted + step
        assert got % step == 0
        assert (
            scores[group.classes][keep[group.classes]].min() >= np.sort(scores[group.classes])[-got]
        )


def test_projection_never_takes_back_what_is_gone() -> None:
    graph = channel_graph(build_model("resnet20", 10), torch.zeros(1, 3, 32, 32))
    costs = NetworkCosts(graph)
    limits = Limits(costs, {"macs": 0.5 * float(costs.macs(as_tensor(graph.all_kept())))})
    ranking = np.random.default_rng(0).random(graph.class_count)
    there = above_in_steps(ranking, graph, 8, threshold=0.2)
    keep = project(np.where(there, ranking, -np.inf), graph, limits, 8)
    assert not (keep & ~there).any()
    assert float(limits.load(as_tensor(keep))) <= 1.0
    loose = Limits(costs, {"macs": 0.99 * float(costs.macs(as_tensor(graph.all_kept())))})
    assert (project(np.where(there, ranking, -np.inf), graph, loose, 8) == there).all()


class TwoConvolutions(nn.Module):
    """The first one doesn't train."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 3, 3)
        self.conv1.weight.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(self.conv1(x).relu()).mean((2, 3))


def run(path, stop_in_epoch: int | None = None, model: nn.Module | None = None) -> SearchResult:
    torch.manual_seed(0)
    model = model or randomize(TinyNet(dropout=0.3, width=16))
    graph = channel_graph(model, torch.randn(1, 3, 6, 6))
    costs = NetworkCosts(graph)
    limits = Limits(costs, {"macs": 0.3 * float(costs.macs(as_tensor(graph.all_kept())))})
    prior = torch.rand(16, generator=torch.Generator().manual_seed(1), dtype=torch.float64) + 0.1
    agents = GradientAgents(prior, limits, BudgetSettings(first_temperature=0.1))
    task = PruneTask(
        start=Shrinking.whole(model, graph),
        graph=graph,
        limits=limits,
        channel_step=2,
        images=ToyImages(),
        recipe=Recipe(6, 0.05),
        compute=CPU,
        seed=0,
        checkpoint=Checkpoint(path),
        observer=Notes(stop_in_epoch),
    )
    return search(task, agents, cut_while_learning=True)


def test_search_cuts_what_is_certain_and_goes_on() -> None:
    found = run(None)
    gone = np.isneginf(found.ranking)
    assert 0 < gone.sum() <= 12
    assert (found.probabilities[gone] == 0).all()
    assert sorted(found.left.classes.tolist()) == np.flatnonzero(~gone).tolist()
    assert len(found.left.classes) % 2 == 0
    assert found.left.model.conv1.weight.shape[0] == len(found.left.classes)


def test_interrupted_search_with_cuts_equals_the_undisturbed_one(tmp_path) -> None:
    whole = run(None)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "search.pt", stop_in_epoch=4)
    resumed = run(tmp_path / "search.pt")
    assert np.array_equal(whole.ranking, resumed.ranking)
    assert np.array_equal(whole.probabilities, resumed.probabilities)
    first, second = whole.left.model.state_dict(), resumed.left.model.state_dict()
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_search_goes_on_beside_a_weight_that_does_not_train(tmp_path) -> None:
    model = TwoConvolutions()
    frozen = model.conv1.weight.clone()
    found = run(tmp_path / "search.pt", model=model)
    left = found.left.model
    assert len(left.conv1.weight) < 16
    assert torch.equal(left.conv1.weight, frozen[found.left.classes])


class Grouped(nn.Module):
    """A grouped convolution that becomes depthwise when one class of its input stays."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 1)
        self.grouped = nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.head = nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.grouped(self.first(x).relu()).relu()).mean((2, 3))


def test_a_cut_that_couples_anew_is_exact_but_can_not_go_on() -> None:
    torch.manual_seed(0)
    model, x = Grouped().double().eval(), torch.randn(2, 3, 6, 6, dtype=torch.float64)
    graph = channel_graph(model, x[:1])
    keep = graph.all_kept()
    (group,) = [g for g in graph.groups if "first" in g.producers]
    keep[group.classes[1:]] = False
    whole = Shrinking.whole(model, graph)
    slimmed, difference = whole.cut(keep, x)
    assert difference < 1e-12
    assert slimmed.grouped.weight.shape[1] == 1
    with pytest.raises(CouplingError, match="couple|own"):
        whole.without(keep, x)
