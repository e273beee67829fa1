"""Methods that search: sparse scales, hard-concrete gates, evolution of widths."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from channel_nets import TinyResNet, randomize
from decore_toys import Notes, TinyNet, ToyImages
from torch import nn
from torch.nn import functional as F

from compressor.checkpoint import Checkpoint
from compressor.compute import Compute
from compressor.cost import Limits, NetworkCosts, as_tensor
from compressor.decore.policy import scheduled_load
from compressor.decore.projection import project
from compressor.epochs import DivergedError
from compressor.graph import channel_graph
from compressor.masks import ChannelMasks
from compressor.methods import one_shot
from compressor.methods.catalogue import CATALOGUE
from compressor.methods.evolution import Evolution
from compressor.methods.hard_concrete import HardConcrete, open_probabilities, sample_gates
from compressor.methods.masked_loss import MaskedLoss
from compressor.methods.method import Choice, PruneTask
from compressor.methods.registry import METHODS
from compressor.methods.rounds import in_rounds
from compressor.methods.scores import norm_scales
from compressor.methods.sparse_scale import ScalePenalty, SparseScale
from compressor.shrink import Shrinking
from compressor.training import Recipe
from compressor.verify import check_slim

CPU = Compute(torch.device("cpu"), mixed_precision=False)
SEARCHING = ("bn-sparse", "hard-concrete", "evolution")


AIMING = [name for name in METHODS if name != "dead"]
"""Methods that go down to a target."""


def task_of(
    model: nn.Module,
    share: float = 0.6,
    notes: Notes | None = None,
    path: Path | None = None,
    channel_step: int = 1,
    **recipe: object,
) -> PruneTask:
    images = ToyImages()
    graph = channel_graph(model, images.x[:1])
    costs = NetworkCosts(graph)
    whole = float(costs.macs(as_tensor(graph.all_kept())))
    torch.manual_seed(9)
    return PruneTask(
        start=Shrinking.whole(model, graph),
        graph=graph,
        limits=Limits(costs, {"macs": share * whole}),
        channel_step=channel_step,
        images=images,
        recipe=replace(Recipe(epochs=4, learning_rate=0.05, distillation=0.5), **recipe),
        compute=CPU,
        seed=3,
        checkpoint=Checkpoint(path),
        observer=notes or Notes(),
        teacher=TinyNet().eval(),
    )


def tiny_resnet(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return randomize(TinyResNet(width=8, hidden=8)).eval()


def check_choice(task: PruneTask, choice: Choice) -> None:
    """Within the limits, and what is cut out is what the masks hid."""
    assert float(task.limits.load(as_tensor(choice.keep))) <= 1.0
    assert not choice.left.model.training
    left = choice.left
    x = ToyImages().x[:4]
    smaller = left.without(choice.keep, x)
    mine = choice.keep[left.classes]
    assert check_slim(left.model, left.graph, mine, smaller.model, x) < 1e-9
    assert sorted(smaller.classes.tolist()) == np.flatnonzero(choice.keep).tolist()


@pytest.mark.parametrize("name", AIMING)
def test_every_method_meets_its_limits(name: str) -> None:
    task = task_of(tiny_resnet(), share=0.5, channel_step=2, epochs=2)
    choice = METHODS[name](task)
    check_choice(task, choice)
    # as much as fits: at most one step of the dearest group is left over
    assert float(task.limits.load(as_tensor(choice.keep))) > 0.6


@pytest.mark.parametrize("name", AIMING)
def test_rankings_choose_again(name: str) -> None:
    """The same at the same limits, less at tighter ones, and nothing that is gone already."""
    task = task_of(tiny_resnet(), share=0.5, channel_step=2, epochs=2)
    choice = METHODS[name](task)
    again = project(choice.ranking, task.graph, task.limits, task.channel_step)
    assert again.tolist() == choice.keep.tolist()
    tighter = Limits(task.limits.costs, {"macs": 0.7 * task.limits.limits["macs"]})
    less = project(choice.ranking, task.graph, tighter, task.channel_step)
    assert float(tighter.load(as_tensor(less))) <= 1.0
    gone = ~np.isin(np.arange(task.graph.class_count), choice.left.classes)
    assert not (less & gone).any()
    assert (choice.ranking[gone] == -np.inf).all()


@pytest.mark.parametrize("name", [name for name in AIMING if not CATALOGUE[name].searches])
def test_rounds_with_every_method_that_chooses_at_once(name: str) -> None:
    notes = Notes()
    task = task_of(tiny_resnet(), share=0.4, notes=notes, epochs=2)
    choice = in_rounds(METHODS[name], 3)(task)
    check_choice(task, choice)
    assert len(choice.left.classes) < task.graph.class_count  # earlier rounds have cut
    assert [stage for stage, _, _ in notes.epochs] == ["round 1", "round 2"]


@pytest.mark.parametrize("name", SEARCHING)
@pytest.mark.parametrize("stopped_in", [1, 3])
def test_resumed_search_is_the_undisturbed_one(name: str, stopped_in: int, tmp_path: Path) -> None:
    """Bit for bit, dropout included."""

    def model() -> nn.Module:
        torch.manual_seed(0)
        return TinyNet(dropout=0.3, width=8)

    def run(notes: Notes, path: Path | None, seed: int) -> Choice:
        task = task_of(model(), notes=notes, path=path)
        torch.manual_seed(seed)
        return METHODS[name](task)

    expected_notes = Notes()
    expected = run(expected_notes, None, seed=5)
    path = tmp_path / "search.pt"
    with pytest.raises(KeyboardInterrupt):
        run(Notes(stop_in_epoch=stopped_in), path, seed=5)
    notes = Notes()
    found = run(notes, path, seed=5 if stopped_in == 1 else 77)

    assert found.keep.tolist() == expected.keep.tolist()
    ours, theirs = found.left.model.state_dict(), expected.left.model.state_dict()
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    assert notes.epochs == expected_notes.epochs[stopped_in - 1 :]
    assert [epoch for _, epoch, _ in expected_notes.epochs] == [1, 2, 3, 4]


@pytest.mark.parametrize("name", ["bn-sparse", "hard-concrete"])
def test_diverging_loss_is_named(name: str) -> None:
    model = TinyNet()
    model.head.weight.data.fill_(float("nan"))
    with pytest.raises(DivergedError, match="search: the loss became nan in epoch 1, also with"):
        METHODS[name](task_of(model))


def test_penalty_is_what_the_ranking_adds_up() -> None:
    """One unit of pull per class, however many batch norms it has; nothing on fixed channels."""
    model = tiny_resnet()
    graph = channel_graph(model, ToyImages().x[:1])
    penalty = ScalePenalty(model, graph)()
    assert penalty.item() == pytest.approx(float(norm_scales(model, graph).sum()), rel=1e-5)
    penalty.backward()
    # the stream's classes pass three batch norms, hidden ones a single one
    assert model.norm.weight.grad.tolist() == pytest.approx([1 / 3] * 8)
    assert model.block1.bn1.weight.grad.tolist() == pytest.approx([1.0] * 8)


class HalfUseless(nn.Module):
    """Six hidden channels: three that see one colour each, and three that the head never reads."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 1, bias=False)
        self.norm = nn.BatchNorm2d(6)
        self.head = nn.Linear(6, 3)
        self.conv.weight.data[:, :, 0, 0] = torch.eye(3).repeat(2, 1)
        self.head.weight.data.zero_()
        self.head.weight.data[:, :3] = torch.eye(3)
        self.head.weight.register_hook(lambda gradient: gradient * (torch.arange(6) < 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(F.relu(self.norm(self.conv(x))).mean((2, 3)))


USEFUL = [True] * 3 + [False] * 3


def test_sparse_training_shrinks_useless_scales() -> None:
    model = HalfUseless()
    task = task_of(model, share=0.5, epochs=20, decays=False, distillation=0.0)
    choice = SparseScale(strength=0.03)(task)
    scale = model.norm.weight.detach().abs()
    # 60 steps of rate 0.05 x 0.03 / (1 - 0.9) pull by 0.9, less what warm-up takes
    assert float(scale[3:].max()) < 0.3 < 0.9 < float(scale[:3].min())
    assert choice.keep.tolist() == USEFUL


def test_sparse_training_needs_batch_norms() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    )
    with pytest.raises(ValueError, match="no batch norm with a scale"):
        SparseScale()(task_of(model))


def test_expected_gate_count_is_that_of_the_samples() -> None:
    logits = torch.tensor([-4.0, -1.0, 0.0, 0.5, 3.0])
    gates = sample_gates(logits, 40_000, torch.Generator().manual_seed(0))
    assert gates.shape == (40_000, 5)
    assert (float(gates.min()), float(gates.max())) == (0.0, 1.0)
    observed = (gates > 0).double().mean(dim=0)
    # the closed form again, from the binary concrete's distribution function at the point that
    # the stretching sends to zero: P(s <= q) = sigmoid(beta logit(q) - log alpha)
    beta, low, high = 2 / 3, -0.1, 1.1
    point = -low / (high - low)
    shut = torch.sigmoid(beta * math.log(point / (1 - point)) - logits.double())
    torch.testing.assert_close(open_probabilities(logits.double()), 1 - shut)
    torch.testing.assert_close(observed, 1 - shut, rtol=0, atol=0.01)
    # symmetric stretching: as often exactly 1 at log alpha as exactly 0 at -log alpha
    whole = (gates == 1).double().mean(dim=0)
    expected = 1 - open_probabilities(-logits.double())
    torch.testing.assert_close(whole, expected, rtol=0, atol=0.01)


def test_gradient_reaches_every_gate() -> None:
    model = tiny_resnet().train()
    x, labels = ToyImages().x, ToyImages().labels
    graph = channel_graph(model, x[:1])
    logits = torch.zeros(graph.class_count, requires_grad=True)
    with ChannelMasks(model, graph) as masks:
        masks.set(sample_gates(logits, len(x), torch.Generator().manual_seed(0)))
        F.cross_entropy(model(x), labels).backward()
    assert logits.grad is not None
    assert bool((logits.grad.abs() > 1e-9).all())


def test_gates_follow_the_schedule() -> None:
    notes = Notes()
    task = task_of(TinyNet(width=16), share=0.5, notes=notes, epochs=20)
    choice = HardConcrete()(task)
    loads = [values["expected_load"] for _, _, values in notes.epochs]
    for epoch in range(12):
        last_step = (epoch * 3 + 2) / 60
        assert loads[epoch] == pytest.approx(scheduled_load(2.0, last_step, 0.6), abs=0.08)
    # afterwards the limit is an upper bound: the loss itself may want less
    assert all(0.85 < load < 1.02 for load in loads[12:])
    prices = [values["price"] for _, _, values in notes.epochs]
    assert min(prices) >= 0 and max(prices) > 0
    check_choice(task, choice)


def test_gates_find_the_useful_channels() -> None:
    task = task_of(HalfUseless(), share=0.5, epochs=20, learning_rate=0.01, distillation=0.0)
    assert HardConcrete()(task).keep.tolist() == USEFUL


def test_gates_without_limits_drop_nothing() -> None:
    task = task_of(TinyNet())
    assert HardConcrete()(replace(task, limits=Limits(task.limits.costs, {}))).keep.all()


COLOURS = ((0, 1, 2, 0, 1, None), (2, None, None, None, None, None))
"""Which colour each channel of two layers sees; None sees all of them alike."""


class TwoLayers(nn.Module):
    """Two layers side by side, of equal cost, whose channels see `COLOURS`."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 6, 1, bias=False)
        self.second = nn.Conv2d(3, 6, 1, bias=False)
        self.head = nn.Linear(12, 3)
        for layer, colours in zip((self.first, self.second), COLOURS, strict=True):
            layer.weight.data[:, :, 0, 0] = torch.stack([_sees(c) for c in colours])
        reads = [_sees(c) for c in (*COLOURS[0], *COLOURS[1])]
        self.head.weight.data = torch.stack(reads, dim=1)
        self.head.bias.data.zero_()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = torch.cat((F.relu(self.first(x)), F.relu(self.second(x))), dim=1)
        return self.head(out.mean((2, 3)))


def _sees(colour: int | None) -> torch.Tensor:
    return torch.full((3,), 1 / 3) if colour is None else torch.eye(3)[colour]


def test_evolution_finds_where_the_useful_channels_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Six of twelve channels may stay; the best widths, by trying all, are five and one."""

    def planted(task: PruneTask) -> torch.Tensor:
        # right order inside the layers, equal over layers: both founders take three of each
        return torch.tensor([6.0, 5, 4, 3, 2, 1] * 2, dtype=torch.float64)

    monkeypatch.setattr("compressor.methods.evolution.taylor", planted)
    task = task_of(TwoLayers(), share=0.5, epochs=40)
    judge = MaskedLoss(task)
    choices = [
        np.array([i < wide for i in range(6)] + [i < 6 - wide for i in range(6)])
        for wide in range(1, 6)
    ]
    losses = [judge(keep) for keep in choices]
    assert losses.index(min(losses)) == 4
    founder = one_shot.globally(planted)(task)
    assert founder.keep.tolist() == choices[2].tolist()
    assert Evolution(population=6)(task).keep.tolist() == choices[4].tolist()


@pytest.mark.parametrize("seed", range(3))
def test_evolution_is_never_worse_than_its_first_individual(seed: int) -> None:
    notes = Notes()
    task = replace(task_of(tiny_resnet(seed), share=0.4, notes=notes, epochs=3), seed=seed)
    choice = Evolution()(task)
    judge, first = MaskedLoss(task), one_shot.globally(one_shot.taylor)(task)
    assert judge(choice.keep) <= judge(first.keep)
    best = [values["loss"] for _, _, values in notes.epochs]
    assert best == sorted(best, reverse=True)
    assert best[-1] == pytest.approx(judge(choice.keep))


def test_evolution_leaves_the_network_alone() -> None:
    model = tiny_resnet()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    momenta = [m.momentum for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    METHODS["evolution"](task_of(model, epochs=1))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [m.momentum for m in model.modules() if isinstance(m, nn.BatchNorm2d)] == momenta


def test_evolution_without_epochs_is_taylor() -> None:
    task = task_of(tiny_resnet(), epochs=0)
    assert METHODS["evolution"](task).keep.tolist() == METHODS["taylor"](task).keep.tolist()


def test_masked_loss_measures_batch_norms_anew() -> None:
    """Wrong running statistics don't count; those of the recalibration images do."""
    torch.manual_seed(0)
    model = TinyNet(width=6)
    task = task_of(model)
    keep = np.array([True, True, False, True, False, True])
    first = MaskedLoss(task)(keep)
    randomize(model, seed=4)
    model.bn1.weight.data.fill_(1.0)
    model.bn1.bias.data.zero_()
    assert MaskedLoss(task)(keep) == pytest.approx(first, rel=1e-5)

    batches = list(task.images.train(0))
    twin = TinyNet(width=6).train()
    twin.load_state_dict(model.state_dict())
    twin.bn1.momentum = 1.0  # the only recalibration batch
    with torch.no_grad():
        twin(batches[0][0])
        unbiased = twin.eval()
        total = 0.0
        for x, labels in batches[1:]:
            hidden = F.relu(unbiased.bn1(unbiased.conv1(x))).mean((2, 3))
            logits = unbiased.head(hidden * torch.from_numpy(keep))
            total += float(F.cross_entropy(logits, labels, reduction="sum"))
    assert first == pytest.approx(total / 32, rel=1e-5)
