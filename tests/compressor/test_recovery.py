"""Distillation of features, L1 and L2, regularization for less capacity, batch-norm statistics."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from channel_nets import random_keep, randomize
from decore_toys import Notes, TinyNet, ToyImages
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from compressor.capacity import dropout_rate, scale_dropout, scaled_decay, share_left
from compressor.checkpoint import Checkpoint
from compressor.codebook.fitting import FITS
from compressor.codebook.sharing import share_weights
from compressor.compute import Compute
from compressor.distill import FeaturePairs, shared_stages, stage_ends
from compressor.errors import InputError
from compressor.graph import channel_graph
from compressor.losses import attention_losses, attention_map
from compressor.models import build_model
from compressor.quantization.fake import FakeQuantized
from compressor.quantization.scheme import Scheme
from compressor.recalibrate import recalibrate
from compressor.slim import slim
from compressor.training import Batch, Recipe, evaluate, fit, image_losses, sgd

CPU = Compute(torch.device("cpu"), mixed_precision=False)
X = torch.zeros(1, 3, 32, 32)


def slimmed(model: nn.Module, x: Tensor = X, share: float = 0.5) -> nn.Module:
    graph = channel_graph(model, x)
    return slim(model, graph, random_keep(graph, 0, share, empty_every=0))


def hook_count(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


# Attention transfer


def test_attention_loss_is_the_paper_s() -> None:
    rng = np.random.default_rng(0)
    student, teacher = rng.normal(size=(2, 5, 3, 4)), rng.normal(size=(2, 7, 3, 4))

    def map_of(features: np.ndarray) -> np.ndarray:
        summed = (np.abs(features) ** 2).sum(axis=1).reshape(len(features), -1)
        return summed / np.sqrt((summed**2).sum(axis=1, keepdims=True))

    expected = ((map_of(student) - map_of(teacher)) ** 2).mean(axis=1) / 2
    pair = (torch.from_numpy(student), torch.from_numpy(teacher))
    np.testing.assert_allclose(attention_losses([pair]), expected, rtol=1e-5)
    np.testing.assert_allclose(attention_losses([pair, pair]), 2 * expected, rtol=1e-5)


@given(scale=st.floats(0.1, 10), zeros=st.integers(0, 4), seed=st.integers(0, 99))
def test_attention_knows_neither_scale_nor_channels_without_signal(
    scale: float, zeros: int, seed: int
) -> None:
    """So a slimmed network that lost only silent channels has nothing to learn from it."""
    g = torch.Generator().manual_seed(seed)
    student = torch.randn(2, 3, 4, 4, generator=g)
    teacher = torch.cat((student * scale, torch.zeros(2, zeros, 4, 4)), dim=1)
    assert attention_losses([(student, teacher)]).tolist() == pytest.approx([0, 0], abs=1e-10)
    assert attention_map(student).norm(dim=1).tolist() == pytest.approx([1, 1], rel=1e-5)


def test_stages_of_residual_networks_end_with_their_last_block() -> None:
    resnet = build_model("resnet20", 10)
    ends = stage_ends(resnet, X)
    blocks = {name for name, _ in resnet.named_children()}
    assert list(ends) == [(32, 32), (16, 16), (8, 8)]
    assert set(ends.values()) <= blocks  # whole stages, not layers inside their blocks
    assert stage_ends(slimmed(resnet), X) == ends

    bottlenecks = build_model("torchvision:resnet50", 10)
    ends = stage_ends(bottlenecks, torch.zeros(1, 3, 64, 64))
    assert list(ends.values())[1:] == ["layer1", "layer2", "layer3", "layer4"]


def test_stages_of_a_plain_network_end_before_the_pools() -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(4, 5, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(5, 2),
    )  # fmt: skip
    assert stage_ends(network, torch.zeros(1, 3, 8, 8)) == {(8, 8): "2", (4, 4): "5"}


def test_looking_for_stages_changes_nothing() -> None:
    model = randomize(TinyNet(dropout=0.5)).train()
    model.bn1.eval()
    before = copy.deepcopy(model.state_dict())
    random = torch.get_rng_state()
    stage_ends(model, X)
    scale_dropout(model, copy.deepcopy(model), X)
    assert model.training and model.dropout.training and not model.bn1.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert torch.equal(random, torch.get_rng_state())
    assert hook_count(model) == 0


def test_teachers_of_another_family_share_the_sizes_that_both_have() -> None:
    shared = shared_stages(build_model("resnet20", 10), build_model("vgg16", 10), X)
    assert list(shared) == [(32, 32), (16, 16), (8, 8)]
    flat = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10))
    with pytest.raises(InputError, match=r"32x32, 16x16, 8x8, those of the teacher none; use"):
        shared_stages(build_model("resnet20", 10), flat, X)


def test_pairs_give_the_loss_of_the_maps_at_the_ends_of_stages() -> None:
    teacher = randomize(build_model("resnet20", 10)).eval()
    student = slimmed(teacher)
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with FeaturePairs(student, teacher, X) as pairs:
        student(x), teacher(x)
        found = pairs.losses()
    expected = torch.zeros(2)
    maps: dict[str, Tensor] = {}
    names = list(stage_ends(teacher, X).values())
    for net, side in ((student, "s"), (teacher, "t")):
        for name in names:
            net.get_submodule(name).register_forward_hook(
                lambda m, i, out, key=side + name: maps.update({key: out})
            )
        net(x)
    for name in names:
        s, t = (F.normalize(maps[k + name].pow(2).mean(1).flatten(1)) for k in "st")
        expected += (s - t).pow(2).mean(1) / 2
    torch.testing.assert_close(found, expected)
    assert (found > 0).all()


class Shy(nn.Module):
    """One ReLU for maps of 8x8 and for vectors of 8, and a kernel as large as the maps."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.wide = nn.Conv2d(4, 4, 8, padding="same")
        self.relu = nn.ReLU()
        self.hidden, self.last = nn.Linear(4, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.relu(self.wide(self.relu(self.norm(self.conv(x)))))
        return self.last(self.relu(self.hidden(maps.mean((2, 3)))))


@pytest.mark.parametrize("kind", ["plain", "rounded", "shared weights"])
def test_only_maps_of_images_are_caught(kind: str) -> None:
    torch.manual_seed(0)
    teacher, x = randomize(Shy()).eval(), torch.randn(8, 3, 8, 8)  # vectors of (8, 8), too
    student: nn.Module = copy.deepcopy(teacher)
    if kind == "rounded":
        student = FakeQuantized(student, Scheme(), lambda: [x], x[:1]).eval()
    elif kind == "shared weights":
        student = share_weights(student, 256, fit=FITS["kmeans"], seed=0)
    with torch.no_grad(), FeaturePairs(student, teacher, x[:1]) as pairs:
        answers = student(x), teacher(x)
        losses = pairs.losses()
    assert losses.shape == (8,) and float(losses.max()) < 1e-3
    assert (answers[0] - answers[1]).abs().max() < 0.05 * answers[1].abs().max()


def attentive(path: Path | None, notes: Notes, model: nn.Module, teacher: nn.Module) -> float:
    recipe = Recipe(epochs=3, learning_rate=0.1, distillation=0.5, attention=1000.0)
    torch.manual_seed(5)
    return fit(
        model,
        ToyImages(),
        recipe,
        CPU,
        stage="finetune",
        checkpoint=Checkpoint(path),
        observer=notes,
        teacher=teacher,
    )


def tiny(seed: int, width: int = 4) -> TinyNet:
    torch.manual_seed(seed)
    return TinyNet(dropout=0.3, width=width)


def test_a_resumed_fit_with_features_is_the_undisturbed_one(tmp_path: Path) -> None:
    teacher = tiny(9, width=6).eval()
    expected_notes, undisturbed = Notes(), tiny(0)
    expected = attentive(None, expected_notes, undisturbed, teacher)
    stopped = tiny(0)
    with pytest.raises(KeyboardInterrupt):
        attentive(tmp_path / "fit.pt", Notes(stop_in_epoch=2), stopped, teacher)
    notes, resumed = Notes(), tiny(0)
    assert attentive(tmp_path / "fit.pt", notes, resumed, teacher) == expected
    assert notes.epochs == expected_notes.epochs[1:]
    for name, value in resumed.state_dict().items():
        assert torch.equal(value, undisturbed.state_dict()[name])
    assert hook_count(stopped) == hook_count(resumed) == hook_count(teacher) == 0


def test_one_step_with_features_follows_the_sum_of_both_losses() -> None:
    """The first batch's loss, by hand, and the gradient that reaches the first layer."""
    teacher, model = tiny(9, width=6).eval(), TinyNet()
    x, labels = next(iter(ToyImages().train(0)))
    recipe = Recipe(1, 0.1, distillation=0.5, attention=1000.0)
    twin = copy.deepcopy(model).train()
    student_map, teacher_map = twin.bn1(twin.conv1(x)), teacher.bn1(teacher.conv1(x)).detach()
    attention = attention_losses([(student_map, teacher_map)])
    logits = twin.head(twin.dropout(F.relu(student_map).mean((2, 3))))
    expected = image_losses(logits, labels, teacher(x).detach(), recipe) + 1000 * attention
    notes = Notes()
    attentive_step(model, recipe, teacher, notes)
    assert notes.steps[0]["loss"] == pytest.approx(float(expected.mean().detach()), rel=1e-5)


def attentive_step(model: nn.Module, recipe: Recipe, teacher: nn.Module, notes: Notes) -> None:
    fit(
        model,
        ToyImages(),
        recipe,
        CPU,
        stage="finetune",
        checkpoint=Checkpoint(None),
        observer=notes,
        teacher=teacher,
    )


class Counting(nn.Module):
    """A teacher that counts how often it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.asked = tiny(9), 0

    def forward(self, x: Tensor) -> Tensor:
        self.asked += 1
        return self.net(x)


@pytest.mark.parametrize(("distillation", "asked"), [(0.0, 0), (0.5, 3)])
def test_a_teacher_without_a_part_in_the_loss_is_not_run(distillation: float, asked: int) -> None:
    teacher, model = Counting().eval(), tiny(0)
    attentive_step(model, Recipe(1, 0.1, distillation=distillation), teacher, Notes())
    assert teacher.asked == asked


# L1 and L2


@pytest.mark.parametrize("kind", ["l1", "l2"])
def test_a_step_follows_the_gradient_of_loss_and_penalty(kind: str) -> None:
    model = randomize(tiny(0)).eval()
    x, labels = next(iter(ToyImages().train(0)))
    recipe = Recipe(1, 0.1, weight_decay=0.03, momentum=0.0, regularizer=kind)
    twin = copy.deepcopy(model)
    weights = [p for p in twin.parameters() if p.dim() > 1]
    penalty = sum(w.abs().sum() if kind == "l1" else w.square().sum() / 2 for w in weights)
    (F.cross_entropy(twin(x), labels) + 0.03 * penalty).backward()

    optimizer = sgd(model, recipe)
    F.cross_entropy(model(x), labels).backward()
    optimizer.step()
    for (name, after), before in zip(model.named_parameters(), twin.parameters(), strict=True):
        expected = before.detach() - 0.1 * before.grad
        torch.testing.assert_close(after.detach(), expected, msg=name)


def test_l1_makes_weights_small_that_l2_leaves() -> None:
    def small(kind: str) -> float:
        model = tiny(0)
        recipe = Recipe(30, 0.1, weight_decay=0.01, regularizer=kind)
        optimizer = sgd(model, recipe)
        for epoch in range(recipe.epochs):
            for x, labels in ToyImages().train(epoch):
                optimizer.zero_grad()
                F.cross_entropy(model(x), labels).backward()
                optimizer.step()
        return float((model.conv1.weight.abs() < 0.01).float().mean())

    assert small("l1") > 2 * small("l2")


# Less capacity


def test_dropout_follows_han_2015() -> None:
    assert dropout_rate(0.5, 25, 100) == 0.25
    assert dropout_rate(0.5, 100, 100) == 0.5
    assert dropout_rate(0.5, 0, 100) == 0.0


@given(st.floats(0, 1), st.integers(1, 10**6), st.integers(1, 10**6))
def test_dropout_never_rises(rate: float, left: int, whole: int) -> None:
    assert 0 <= dropout_rate(rate, min(left, whole), max(left, whole)) <= rate


class TwoDropouts(nn.Module):
    """Dropout before a convolution, before a linear layer, and behind all layers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.spatial = nn.Conv2d(3, 8, 3), nn.Dropout2d(0.2)
        self.body, self.dropout = nn.Conv2d(8, 16, 3), nn.Dropout(0.5)
        self.head, self.last = nn.Linear(16, 4), nn.Dropout(0.1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.body(self.spatial(F.relu(self.stem(x)))))
        return self.last(self.head(self.dropout(x.mean((2, 3)))))


def test_dropout_is_scaled_by_the_connections_of_the_next_layer() -> None:
    original = TwoDropouts()
    smaller = slimmed(original)
    body, head = smaller.body.weight.numel(), smaller.head.weight.numel()
    assert (body, head) != (8 * 16 * 9, 16 * 4)
    for _ in range(2):  # the second call changes nothing
        scale_dropout(smaller, original, X)
        assert smaller.spatial.p == pytest.approx(0.2 * math.sqrt(body / (8 * 16 * 9)))
        assert smaller.dropout.p == pytest.approx(0.5 * math.sqrt(head / (16 * 4)))
        assert smaller.last.p == 0.1
    assert (original.spatial.p, original.dropout.p) == (0.2, 0.5)
    scale_dropout(original, original, X)
    assert (original.spatial.p, original.dropout.p) == (0.2, 0.5)


def test_weight_decay_falls_with_the_root_of_the_parameters() -> None:
    original = TinyNet(width=8)
    smaller = slimmed(original)
    count = sum(p.numel() for p in smaller.parameters())
    share = share_left(smaller, original)
    assert share == count / (8 * 27 + 16 + 8 * 3 + 3)
    recipe = Recipe(3, 0.1, weight_decay=0.01)
    assert scaled_decay(recipe, 0.25) == Recipe(3, 0.1, weight_decay=0.005)
    assert scaled_decay(recipe, 1.0) == recipe


# Batch-norm statistics


class SameSizes:
    """Batches of one size, so that one big batch has the same mean."""

    steps_per_epoch = 6

    def __init__(self) -> None:
        g = torch.Generator().manual_seed(3)
        self.x = torch.randn(6 * 64, 3, 6, 6, generator=g) * 2 + 1

    def train(self, epoch: int) -> Iterator[Batch]:
        for part in self.x.split(64):
            yield part, torch.zeros(64, dtype=torch.long)

    def validation(self) -> Iterator[Batch]:
        yield self.x, torch.zeros(len(self.x), dtype=torch.long)


class TwoNorms(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.dropout = nn.Dropout(0.5)
        self.conv2, self.bn2 = nn.Conv2d(4, 5, 3), nn.BatchNorm2d(5, momentum=0.3)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn2(self.conv2(self.dropout(F.relu(self.bn1(self.conv1(x)))))).mean((2, 3))


def test_recalibrated_statistics_are_those_of_one_big_batch() -> None:
    images, model = SameSizes(), randomize(TwoNorms()).train()
    model.bn2.eval()
    modes = [module.training for module in model.modules()]
    parameters = copy.deepcopy(list(model.parameters()))
    random = torch.get_rng_state()
    recalibrate(model, images, CPU, batches=6)

    with torch.no_grad():
        first = model.conv1(images.x)
        hidden = F.relu(F.batch_norm(first, None, None, model.bn1.weight, model.bn1.bias, True))
        second = model.conv2(hidden)  # no dropout
    for norm, values in ((model.bn1, first), (model.bn2, second)):
        mean, variance = values.mean((0, 2, 3)), values.var((0, 2, 3))
        torch.testing.assert_close(norm.running_mean, mean, atol=0.02, rtol=0.02)
        torch.testing.assert_close(norm.running_var, variance, atol=0.02, rtol=0.03)
    torch.testing.assert_close(model.bn1.running_mean, first.mean((0, 2, 3)), atol=1e-5, rtol=1e-5)
    assert [module.training for module in model.modules()] == modes
    assert (model.bn1.momentum, model.bn2.momentum) == (0.1, 0.3)
    for before, after in zip(parameters, model.parameters(), strict=True):
        assert torch.equal(before, after)
        assert after.grad is None
    assert torch.equal(random, torch.get_rng_state())


def test_recalibration_takes_the_first_batches_and_forgets_what_was() -> None:
    images = SameSizes()
    model, other = TwoNorms(), TwoNorms()
    other.load_state_dict(model.state_dict())
    randomize(other)  # statistics, scales and biases of another network
    for norm in (other.bn1, other.bn2):
        nn.init.ones_(norm.weight)
        nn.init.zeros_(norm.bias)
    recalibrate(model, images, CPU, batches=2)
    recalibrate(other, images, CPU, batches=2)
    first = model.conv1(images.x[:128]).mean((0, 2, 3)).detach()
    torch.testing.assert_close(model.bn1.running_mean, first, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(other.bn1.running_mean, first, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(other.bn2.running_var, model.bn2.running_var)


def test_recalibration_that_fails_leaves_momenta_and_modes_as_they_were() -> None:
    class Broken(SameSizes):
        def train(self, epoch: int) -> Iterator[Batch]:
            yield next(super().train(epoch))
            raise OSError("the disk is gone")

    model = TwoNorms().train()
    model.bn2.eval()
    modes = [module.training for module in model.modules()]
    with pytest.raises(OSError, match="disk"):
        recalibrate(model, Broken(), CPU)
    assert (model.bn1.momentum, model.bn2.momentum) == (0.1, 0.3)
    assert [module.training for module in model.modules()] == modes


def test_networks_without_batch_norm_are_left_alone() -> None:
    model = nn.Sequential(nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2, track_running_stats=False))
    before = copy.deepcopy(model.state_dict())
    recalibrate(model, SameSizes(), CPU)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    with pytest.raises(ValueError, match="batches is 0"):
        recalibrate(TwoNorms(), SameSizes(), CPU, batches=0)


def test_recalibration_repairs_a_network_with_foreign_statistics() -> None:
    """Its answers are right again without any training."""
    model, images = tiny(0), ToyImages()
    attentive_step(model, Recipe(6, 0.1), model, Notes())
    good = evaluate(model, images.validation(), CPU)
    model.bn1.running_mean.add_(5.0)
    assert evaluate(model, images.validation(), CPU) < good
    recalibrate(model, images, CPU)
    assert evaluate(model, images.validation(), CPU) >= good - 0.05
