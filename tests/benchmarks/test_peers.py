"""Torch-Pruning's choice of channels: exact forms, its own counters and pruner as oracles."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compressor.checkpoint import Checkpoint
from compressor.compute import Compute
from compressor.cost import NetworkCosts, as_tensor
from compressor.decore.projection import TargetError, class_step
from compressor.errors import InputError
from compressor.graph import ChannelGraph, channel_graph
from compressor.models.cifar_resnet import CifarResNet
from compressor.saved import load_model, save_model
from compressor.slim import slim
from compressor.training import Batch, Recipe, evaluate, fit

tp = pytest.importorskip("torch_pruning")

from benchmarks.pruning import peers  # noqa: E402
from benchmarks.pruning.peer_forms import Form, ignored_layers, supported_form  # noqa: E402
from benchmarks.pruning.peer_training import sparse_train  # noqa: E402

CPU = Compute(torch.device("cpu"), mixed_precision=False)
STEP = 8
SCHEDULES: tuple[peers.Schedule, ...] = ("progressive", "one-shot")


@pytest.fixture(autouse=True)
def fewer_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps cost time; small networks have too few channels for 400 of them."""
    monkeypatch.setattr(peers, "PRUNING_STEPS", 60)


class Images:
    """32 images of three classes in two batches."""

    steps_per_epoch = 2

    def __init__(self, size: int = 8) -> None:
        g = torch.Generator().manual_seed(3)
        self.x = torch.randn(32, 3, size, size, generator=g)
        self.labels = torch.arange(32) % 3

    def train(self, epoch: int) -> Iterator[Batch]:
        yield self.x[:16], self.labels[:16]
        yield self.x[16:], self.labels[16:]

    def validation(self) -> Iterator[Batch]:
        yield self.x, self.labels


class Quiet:
    """An observer that does not listen."""

    def step(self, *_: object) -> None: ...

    def epoch(self, *_: object) -> None: ...


class OneLayer(nn.Module):
    """One prunable group: 16 hidden channels, each with 27 + 1 + 3 weights in the group's norm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(16)
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(F.relu(self.bn(self.conv(x))).mean((2, 3)))
        return out


def randomized(model: nn.Module, seed: int = 0) -> nn.Module:
    """Give batch norms unequal scales and statistics, so that no two channels are alike."""
    torch.manual_seed(seed)
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias, std=0.3)
            norm.running_mean = torch.randn(norm.num_features) * 0.3
            norm.running_var = torch.rand(norm.num_features) + 0.5
    return model.eval()


def resnet(depth: int = 14) -> nn.Module:
    torch.manual_seed(0)
    return randomized(CifarResNet(depth, num_classes=3))


def macs(model: nn.Module, example: Tensor) -> float:
    graph = channel_graph(model, example)
    return float(NetworkCosts(graph).macs(as_tensor(graph.all_kept())))


def widths(model: nn.Module, graph: ChannelGraph) -> list[int]:
    """Return how many channels each group of the unpruned graph has left."""
    layers = [model.get_submodule(group.producers[0]) for group in graph.groups]
    return [len(layer.weight) for layer in layers]  # type: ignore[arg-type]


def macs_at(graph: ChannelGraph, counts: list[int]) -> float:
    """Return the MACs of a network with so many channels per group."""
    keep = np.zeros(graph.class_count, dtype=np.bool_)
    for group, count in zip(graph.groups, counts, strict=True):
        keep[group.classes[:count]] = True
    return float(NetworkCosts(graph).macs(as_tensor(keep)))


def counted_by_torch_pruning(model: nn.Module, example: Tensor) -> float:
    """Return its count for convolutions and linear layers; it counts an addition per bias."""
    *_, by_layer, _ = tp.utils.count_ops_and_params(model, example, layer_wise=True)
    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    biases = sum(m.bias.numel() for m in layers if isinstance(m, nn.Linear))
    return float(sum(by_layer[layer] for layer in layers) - biases)


def test_padded_shortcuts_break_its_graph() -> None:
    model, example = CifarResNet(20).eval(), torch.zeros(1, 3, 32, 32)
    pruner = tp.pruner.BasePruner(
        model,
        example,
        importance=tp.importance.GroupMagnitudeImportance(p=2),
        ignored_layers=[model.linear],
    )
    with pytest.raises(IndexError, match="index 32 is out of bounds for dimension 0 with size 32"):
        pruner.step()


def test_projection_is_the_same_function() -> None:
    model = resnet(20).double()
    projected = supported_form(model, "projection")
    x = torch.randn(4, 3, 32, 32, dtype=torch.float64)
    torch.testing.assert_close(projected(x), model(x), rtol=0, atol=0)
    shortcuts = [projected.get_submodule(f"layer{stage}.0.shortcut") for stage in (2, 3)]
    assert all(isinstance(conv, nn.Conv2d) and conv.bias is None for conv in shortcuts)
    assert all(p.requires_grad for conv in shortcuts for p in conv.parameters())


def test_forms_leave_the_right_layers_alone() -> None:
    example = torch.zeros(1, 3, 8, 8)
    inner = supported_form(resnet(8), "inner")
    names = {module: name for name, module in inner.named_modules()}
    ignored = ignored_layers(inner, channel_graph(inner, example), "inner")
    stream = ["conv1", "layer1.0.conv2", "layer2.0.conv2", "layer3.0.conv2", "linear"]
    assert sorted(names[layer] for layer in ignored) == stream
    unpadded = OneLayer()
    graph = channel_graph(unpadded, example)
    assert ignored_layers(unpadded, graph, "inner") == [unpadded.head]


@pytest.mark.parametrize("form", ["projection", "inner"])
def test_its_cut_equals_ours(form: Form) -> None:
    images = Images()
    network = supported_form(resnet(), form)
    graph = channel_graph(network, images.x[:1])
    rng = np.random.default_rng(0)
    keep = graph.all_kept()
    for group in graph.groups:
        if form == "projection" or group.removable:
            keep[rng.permutation(group.classes)[: len(group.classes) // 2]] = False
    ours = slim(network, graph, keep)(images.x)
    theirs = peers.cut(copy.deepcopy(network), graph, keep, images.x[:1])
    assert sum(p.numel() for p in theirs.parameters()) < sum(
        p.numel() for p in network.parameters()
    )
    torch.testing.assert_close(theirs(images.x), ours, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("name", ["tp-magnitude-local", "tp-magnitude-global"])
def test_magnitude_keeps_the_largest_group_norms(name: str, schedule: peers.Schedule) -> None:
    images, model = Images(), randomized(OneLayer())
    conv, norm, head = (model.get_parameter(f"{m}.weight") for m in ("conv", "bn", "head"))
    squares = conv.square().sum((1, 2, 3)) + norm.square() + head.square().sum(0)
    slimmed = peers.prune_with_peer(
        name, model, images, CPU, shares={"macs": 0.5}, channel_step=STEP, schedule=schedule
    )
    kept = squares.topk(8).indices.sort().values
    torch.testing.assert_close(slimmed.get_parameter("conv.weight"), conv[kept])
    torch.testing.assert_close(slimmed.get_parameter("head.weight"), head[:, kept])


def test_taylor_keeps_what_the_gradients_say() -> None:
    images, model = Images(), randomized(OneLayer())
    copied = copy.deepcopy(model)
    for x, labels in images.train(0):
        nn.CrossEntropyLoss()(copied(x), labels).backward()
    conv, head = copied.get_parameter("conv.weight"), copied.get_parameter("head.weight")
    assert conv.grad is not None and head.grad is not None
    # it leaves batch norms out of the first-order change
    change = (conv * conv.grad).abs().sum((1, 2, 3)) + (head * head.grad).abs().sum(0)
    slimmed = peers.prune_with_peer(
        "tp-taylor-local", model, images, CPU, shares={"macs": 0.5}, channel_step=STEP
    )
    kept = change.topk(8).indices.sort().values
    torch.testing.assert_close(slimmed.get_parameter("conv.weight"), conv[kept].detach())
    assert all(p.grad is None for p in [*slimmed.parameters(), *model.parameters()])


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("scope", ["local", "global"])
def test_order_is_what_its_pruner_does(scope: str, schedule: peers.Schedule) -> None:
    images, peer = Images(), peers.PEERS[f"tp-magnitude-{scope}"]
    network = supported_form(resnet(8), "projection")
    graph, example = channel_graph(network, images.x[:1]), images.x[:1]
    ranking = peers.removal_order(peer, network, graph, images, CPU, "projection", schedule)
    pruned = copy.deepcopy(network)
    pruner = tp.pruner.BasePruner(
        pruned,
        example,
        importance=tp.importance.GroupMagnitudeImportance(p=2),
        global_pruning=scope == "global",
        pruning_ratio=1.0 if schedule == "progressive" else 0.25,
        iterative_steps=60 if schedule == "progressive" else 1,
        ignored_layers=[pruned.linear],
    )
    for _ in range(15 if schedule == "progressive" else 1):
        pruner.step()
    kept = sum(widths(pruned, graph))
    threshold = np.sort(ranking)[-kept]
    keep = ranking >= threshold
    assert keep.sum() == kept < graph.class_count
    torch.testing.assert_close(pruned(images.x), slim(network, graph, keep)(images.x))


@pytest.mark.parametrize(("share", "schedule"), [(0.5, "progressive"), (0.2, "one-shot")])
@pytest.mark.parametrize("name", peers.PEERS)
def test_every_peer_lands_within_a_step_of_its_target(
    name: str, share: float, schedule: peers.Schedule
) -> None:
    images, model = Images(), resnet(8)
    before = copy.deepcopy(model.state_dict())
    example = images.x[:1]
    slimmed = peers.prune_with_peer(
        name, model, images, CPU, shares={"macs": share}, channel_step=STEP, schedule=schedule
    )
    limit = share * macs(model, example)
    graph = channel_graph(supported_form(model, "projection"), example)
    counts = widths(slimmed, graph)
    assert macs(slimmed, example) == macs_at(graph, counts) <= limit
    for index, group in enumerate(graph.groups):
        step = class_step(group, STEP)
        assert counts[index] % step == 0
        if counts[index] < len(group.classes):
            wider = counts[:index] + [counts[index] + step] + counts[index + 1 :]
            assert macs_at(graph, wider) > limit
    assert macs(slimmed, example) == counted_by_torch_pruning(slimmed, example)
    assert sum(p.numel() for p in slimmed.parameters()) < sum(p.numel() for p in model.parameters())
    assert slimmed(images.x).shape == (32, 3)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_local_is_uniform_and_global_is_not() -> None:
    images, model = Images(), resnet(14)
    with torch.no_grad():  # a block whose channels all matter little
        model.get_parameter("layer3.1.conv1.weight").mul_(0.05)
        model.get_parameter("layer3.1.bn1.weight").mul_(torch.linspace(0.01, 1, 64))
    graph = channel_graph(supported_form(model, "projection"), images.x[:1])
    full = np.array([len(group.classes) for group in graph.groups])
    shares = {}
    for scope in ("local", "global"):
        slimmed = peers.prune_with_peer(
            f"tp-bn-scale-{scope}", model, images, CPU, shares={"macs": 0.5}, channel_step=STEP
        )
        shares[scope] = np.array(widths(slimmed, graph)) / full
    assert np.ptp(shares["local"]) <= 0.25
    assert np.ptp(shares["global"]) > 0.25


def test_inner_form_keeps_the_stream_and_says_what_it_cannot_reach(tmp_path: Path) -> None:
    images, model = Images(), resnet(20)
    prune = partial(
        peers.prune_with_peer, "tp-magnitude-global", model, images, CPU, channel_step=STEP
    )
    slimmed = prune(shares={"macs": 0.5}, form="inner")
    assert [slimmed.get_submodule(f"layer{i}.0.conv2").out_channels for i in (1, 2, 3)] == [
        16,
        32,
        64,
    ]
    assert macs(slimmed, images.x[:1]) <= 0.5 * macs(model, images.x[:1])
    save_model(slimmed, "resnet20", 3, tmp_path)
    torch.testing.assert_close(load_model(tmp_path)(images.x), slimmed(images.x))
    with pytest.raises(TargetError, match="macs is"):
        prune(shares={"macs": 0.1}, form="inner")


def test_result_trains() -> None:
    images, model = Images(), resnet(8)
    slimmed = peers.prune_with_peer(
        "tp-group-norm-global", model, images, CPU, shares={"macs": 0.3}, channel_step=STEP
    )
    before = evaluate(slimmed, images.validation(), CPU)
    recipe = Recipe(epochs=6, learning_rate=0.05)
    top1 = fit(
        slimmed, images, recipe, CPU, stage="", checkpoint=Checkpoint(None), observer=Quiet()
    )
    assert top1 > max(before, 0.5)


@pytest.mark.parametrize("name", ["tp-bn-scale-global", "tp-group-norm-global"])
def test_sparse_training_adds_the_regularizer_s_gradient(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, model = Images(), resnet(8)
    strength, recipe = 0.5, Recipe(epochs=2, learning_rate=0.02, momentum=0.0)
    sums = {}
    for reg in (0.0, strength):
        peer = peers.Peer(
            partial(tp.importance.GroupMagnitudeImportance, p=2),
            partial(peers.PEERS[name].pruner, reg=reg),
            global_pruning=True,
            sparse=True,
        )
        monkeypatch.setitem(peers.PEERS, "strong", peer)
        trained = sparse_train(
            "strong", model, images, recipe, CPU, checkpoint=Checkpoint(None), observer=Quiet()
        )
        sums[reg] = trained.get_parameter("layer1.0.bn1.weight").abs().sum().item()
    # 4 steps at rates between 0.002 and 0.02 pull at every scale by at least their sum times 0.4
    assert sums[strength] < sums[0.0] - 16 * 4 * 0.002 * strength * 0.4
    pruned = peers.prune_with_peer(
        name, model, images, CPU, shares={"macs": 0.5}, channel_step=STEP, sparse=trained
    )
    assert macs(pruned, images.x[:1]) <= 0.5 * macs(model, images.x[:1])


def test_sparse_training_without_strength_is_fit_that_keeps_its_last_epoch() -> None:
    images, model = Images(), resnet(8)
    recipe = Recipe(epochs=2, learning_rate=0.02, weight_decay=0.0)
    monkey = peers.Peer(
        tp.importance.BNScaleImportance,
        partial(tp.pruner.BNScalePruner, reg=0.0),
        global_pruning=True,
        sparse=True,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(peers.PEERS, "idle", monkey)
        trained = sparse_train(
            "idle", model, images, recipe, CPU, checkpoint=Checkpoint(None), observer=Quiet()
        )
    plain = supported_form(model, "projection")
    optimizer = torch.optim.SGD(plain.parameters(), lr=1.0, momentum=0.9, nesterov=True)
    plain.train()
    for step in range(4):
        x, labels = list(images.train(0))[step % 2]
        optimizer.param_groups[0]["lr"] = recipe.rate(step / 4)
        optimizer.zero_grad()
        F.cross_entropy(plain(x), labels).backward()
        optimizer.step()
    for name, value in plain.named_parameters():
        torch.testing.assert_close(trained.get_parameter(name), value, rtol=1e-3, atol=1e-4)


def test_mistakes_are_named() -> None:
    images, model = Images(), randomized(OneLayer())
    with pytest.raises(InputError, match="no peer 'tp-none'"):
        peers.prune_with_peer(
            "tp-none", model, images, CPU, shares={"macs": 0.5}, channel_step=STEP
        )
    with pytest.raises(InputError, match=r"share of macs is 1\.5"):
        peers.prune_with_peer(
            "tp-taylor-local", model, images, CPU, shares={"macs": 1.5}, channel_step=STEP
        )
    with pytest.raises(InputError, match="tp-taylor-local has no sparse training"):
        sparse_train(
            "tp-taylor-local",
            model,
            images,
            Recipe(1, 0.1),
            CPU,
            checkpoint=Checkpoint(None),
            observer=Quiet(),
        )
