"""Shared weights: their values, how their centroids train, and what is left after baking."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from compressor.checkpoint import Checkpoint
from compressor.codebook.fitting import mixture
from compressor.codebook.sharing import SharedWeight, bake, entries_of, share_weights
from compressor.compute import Compute
from compressor.recipe import Recipe, sgd
from compressor.saved import load_model, save_model
from compressor.training import fit


class Small(nn.Module):
    """Dense, depthwise and transposed convolutions, a linear layer; one layer has a weight norm."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.up = nn.ConvTranspose2d(8, 6, 2, 2)
        self.scaled = nn.utils.parametrizations.weight_norm(nn.Conv2d(6, 6, 1))
        self.head = nn.Linear(6, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.stem(x)))
        x = torch.relu(self.up(self.depthwise(x)))
        return self.head(self.scaled(x).mean((2, 3)))  # [N, 6, 2H, 2W] -> [N, 4]


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return Small().eval()


def images(seed: int = 0) -> torch.Tensor:
    return torch.randn(8, 3, 6, 6, generator=torch.Generator().manual_seed(seed))


SHARED = ("stem", "depthwise", "up", "head")


@pytest.mark.parametrize("entries", [2, 4, 16])
def test_baked_weights_take_few_values_and_answer_alike(model: nn.Module, entries: int) -> None:
    before = copy.deepcopy(model.state_dict())
    shared = share_weights(model, entries).eval()
    answers = shared(images())
    dense = bake(shared)
    assert torch.equal(dense(images()), answers)
    for name in SHARED:
        values = np.unique(dense.get_submodule(name).weight.detach().numpy())
        assert len(values) == entries == entries_of(dense)[name]
    assert entries_of(dense)["scaled"] == 36  # computed from others: left alone
    assert {k: v.shape for k, v in dense.state_dict().items()} == {
        k: v.shape for k, v in before.items()
    }
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())  # untouched


def test_values_are_the_means_of_what_they_replace(model: nn.Module) -> None:
    dense = bake(share_weights(model, 4, fit=mixture, seed=3))
    old, new = (net.get_submodule("stem").weight.detach() for net in (model, dense))
    for value in new.unique():
        assert float(old[new == value].mean()) == pytest.approx(float(value), abs=1e-6)


def test_as_many_entries_as_weights_change_nothing(model: nn.Module) -> None:
    dense = bake(share_weights(model, 256))
    assert torch.allclose(dense.get_submodule("stem").weight, model.get_submodule("stem").weight)


def loss_of(net: nn.Module) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(net(images()), torch.arange(8) % 4)


def test_a_centroids_gradient_is_the_sum_over_its_weights(model: nn.Module) -> None:
    shared = share_weights(model, 4).eval()
    loss_of(shared).backward()
    chain = shared.get_submodule("stem").parametrizations.weight
    dense = bake(share_weights(model, 4)).eval()
    weight = dense.get_submodule("stem").weight
    loss_of(dense).backward()
    values, indices = weight.detach().flatten().unique(return_inverse=True)
    sums = torch.zeros(len(values)).index_add_(0, indices, weight.grad.flatten())
    members = torch.bincount(indices)
    # dL/dc = sqrt(n) dL/dtheta, since theta = sqrt(n) c
    assert torch.allclose(chain.original.grad * members.sqrt(), sums, atol=1e-6)


def test_a_step_moves_a_centroid_by_the_mean_of_its_weights_steps(model: nn.Module) -> None:
    dense = bake(share_weights(model, 4)).eval()
    old = dense.get_submodule("stem").weight.detach().clone()
    recipe = Recipe(1, 0.1, weight_decay=0.0, momentum=0.0)
    stepped = []
    for net in (dense, share_weights(model, 4).eval()):
        optimizer = sgd(net, recipe)
        loss_of(net).backward()
        optimizer.step()
        stepped.append(net.get_submodule("stem").weight.detach())
    free, tied = stepped
    for value in old.unique():
        mine = old == value
        assert torch.allclose(tied[mine], free[mine].mean(), atol=1e-6)


def test_gradients_by_finite_differences() -> None:
    torch.manual_seed(0)
    indices = torch.tensor([0, 1, 1, 2, 0, 2])
    shared = SharedWeight(indices, torch.Size([2, 3])).double()
    theta = torch.randn(3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda t: shared(t).sin(), theta)
    assert torch.allclose(shared.right_inverse(shared(theta)), theta)


class FewImages:
    """Two batches of noise with labels that can be learned by heart."""

    steps_per_epoch = 2

    def train(self, epoch: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        return [(images(seed), torch.arange(8) % 4) for seed in range(2)]

    def validation(self) -> list[tuple[torch.Tensor, torch.Tensor]]:
        return self.train(0)


class Silent:
    def step(self, *_: object) -> None: ...

    def epoch(self, *_: object) -> None: ...


def test_fine_tuning_trains_centroids_and_goes_on_from_its_checkpoint(
    model: nn.Module, tmp_path: Path
) -> None:
    recipe = Recipe(epochs=4, learning_rate=0.05)

    def tuned(path: Path) -> nn.Module:
        shared = share_weights(model, 4)
        compute = Compute(torch.device("cpu"), mixed_precision=False)
        few, silent, checkpoint = FewImages(), Silent(), Checkpoint(path)
        fit(shared, few, recipe, compute, stage="t", checkpoint=checkpoint, observer=silent)
        return shared

    whole = bake(tuned(tmp_path / "whole.pt"))
    again = bake(tuned(tmp_path / "whole.pt"))  # finished: taken from the checkpoint
    assert all(entries_of(whole)[name] == 4 for name in SHARED)
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in whole.state_dict().items())
    with torch.no_grad():
        assert loss_of(whole.train()) < loss_of(share_weights(model, 4).train())


def test_a_baked_network_can_be_saved(tmp_path: Path) -> None:
    from compressor.models import build_model

    torch.manual_seed(0)
    dense = bake(share_weights(build_model("resnet20", 10), 2)).eval()
    save_model(dense, "resnet20", 10, tmp_path)
    loaded = load_model(tmp_path)
    assert set(entries_of(loaded).values()) == {2}
    assert torch.equal(loaded(torch.ones(1, 3, 32, 32)), dense(torch.ones(1, 3, 32, 32)))


class Tied(nn.Module):
    """Two convolutions of one parameter, and a head whose weight is also an embedding's."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)
        self.second.weight = self.first.weight
        self.head, self.names = nn.Linear(3, 4), nn.Embedding(4, 3)
        self.names.weight = self.head.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.second(torch.relu(self.first(x))))
        return self.head(x.mean((2, 3))) + self.names.weight.sum(1)


def test_layers_of_one_parameter_train_as_one_and_are_tied_again() -> None:
    torch.manual_seed(0)
    model = Tied().eval()
    shared = share_weights(model, 4)
    assert model.first.weight is model.second.weight
    assert len(list(shared.parameters())) == len(list(model.parameters()))
    optimizer = sgd(shared, Recipe(1, 0.1))
    loss_of(shared).backward()
    optimizer.step()
    answers = shared(images())
    dense = bake(shared)
    assert dense.first.weight is dense.second.weight
    assert dense.head.weight is dense.names.weight
    assert torch.equal(dense(images()), answers)
    assert not torch.equal(dense.first.weight, bake(share_weights(model, 4)).first.weight)
    assert entries_of(dense) == {"first": 4, "second": 4, "head": 12}
    assert dense.state_dict().keys() == model.state_dict().keys()
