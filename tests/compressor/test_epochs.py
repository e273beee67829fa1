"""A loss that is no number: back to the last whole epoch, on at half the rate, then up it goes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from decore_toys import Notes, TinyNet, ToyImages
from test_methods_search import CPU, task_of, tiny_resnet
from torch import nn

from compressor.checkpoint import Checkpoint
from compressor.epochs import MAX_HALVINGS, DivergedError, finite_loss, run_epochs
from compressor.methods.registry import METHODS
from compressor.training import Batch, Recipe, fit


class BadImages(ToyImages):
    """The last batch of an epoch holds no numbers, the first few times."""

    def __init__(self, epoch: int, times: int = 1) -> None:
        super().__init__()
        self._epoch, self._times = epoch, times

    def train(self, epoch: int) -> Iterator[Batch]:
        torch.manual_seed(epoch)  # dropout starts from there, as in a job
        *others, (x, labels) = super().train(epoch)
        yield from others
        bad = epoch == self._epoch and self._times > 0
        self._times -= bad
        yield (x * float("nan") if bad else x), labels


@dataclass(frozen=True)
class Slower(Recipe):
    """Half the rate in the second half."""

    def rate(self, progress: float) -> float:
        return super().rate(progress) * (0.5 if progress >= 0.5 else 1.0)


def fitted(recipe: Recipe, images: ToyImages, path: Path | None) -> tuple[nn.Module, Notes]:
    torch.manual_seed(1)
    model, notes = TinyNet(dropout=0.3), Notes()
    where = Checkpoint(path)
    fit(model, images, recipe, CPU, stage="finetune", checkpoint=where, observer=notes)
    return model, notes


@pytest.mark.parametrize("on_disk", [True, False])
def test_a_failed_epoch_is_done_again_at_half_the_rate(tmp_path: Path, on_disk: bool) -> None:
    path = tmp_path / "fit.pt" if on_disk else None
    found, notes = fitted(Recipe(4, 0.1), BadImages(epoch=2), path)
    expected, expected_notes = fitted(Slower(4, 0.1), BadImages(epoch=9), None)
    assert notes.epochs == expected_notes.epochs
    ours, theirs = found.state_dict(), expected.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert notes.setbacks == [
        (
            "finetune",
            "the loss became nan in epoch 3; back to the end of epoch 2, on with 1/2 of the "
            "learning rate",
        )
    ]


def test_a_resumed_training_keeps_the_lower_rate(tmp_path: Path) -> None:
    path = tmp_path / "fit.pt"
    expected, _ = fitted(Recipe(4, 0.1), BadImages(epoch=1), None)
    fitted(Recipe(4, 0.1), BadImages(epoch=1), path)
    state = torch.load(path, weights_only=True)
    assert state["halvings"] == 1

    torch.manual_seed(1)
    model, stopped = TinyNet(dropout=0.3), Notes(stop_in_epoch=4)
    path.unlink()
    with pytest.raises(KeyboardInterrupt):
        fit(
            model, BadImages(epoch=1), Recipe(4, 0.1), CPU,
            stage="finetune", checkpoint=Checkpoint(path), observer=stopped,
        )  # fmt: skip
    found, notes = fitted(Recipe(4, 0.1), BadImages(epoch=9), path)
    assert [epoch for _, epoch, _ in notes.epochs] == [4]
    ours, theirs = found.state_dict(), expected.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_it_gives_up_and_stays_resumable(tmp_path: Path) -> None:
    path = tmp_path / "fit.pt"
    with pytest.raises(DivergedError, match="nan in epoch 3, also with 1/8 of the learning rate"):
        fitted(Recipe(4, 0.1), BadImages(epoch=2, times=MAX_HALVINGS + 1), path)
    assert Checkpoint(path).load()["epoch"] == 2


@pytest.mark.parametrize("name", ["decore", "paper", "bn-sparse", "hard-concrete"])
@pytest.mark.parametrize("on_disk", [True, False])
def test_searches_go_back_too(name: str, on_disk: bool, tmp_path: Path) -> None:
    """With whatever the learner knows beside the weights."""
    notes = Notes()
    path = tmp_path / "search.pt" if on_disk else None
    task = task_of(tiny_resnet(), notes=notes, path=path)
    object.__setattr__(task, "images", BadImages(epoch=3))
    choice = METHODS[name](task)
    assert [epoch for _, epoch, _ in notes.epochs] == [1, 2, 3, 4]
    assert [stage for stage, _ in notes.setbacks] == ["search"]
    assert all(bool(p.isfinite().all()) for p in choice.left.model.parameters())


@pytest.mark.parametrize("name", ["decore", "taylor"])
def test_a_network_without_a_loss_is_not_pruned(name: str) -> None:
    model = tiny_resnet()
    next(model.parameters()).data.fill_(float("nan"))
    with pytest.raises(DivergedError, match="to be pruned has a loss that is no number"):
        METHODS[name](task_of(model))


class Counting:
    """A training whose only state is a number; NaN where `broken` says so."""

    def __init__(self, broken: dict[int, str]) -> None:
        self.value, self.rates, self._broken = torch.zeros(1), [], dict(broken)

    def run_epoch(self, epoch: int, rate_factor: float) -> dict[str, float]:
        self.rates.append(rate_factor)
        self.value += 1
        how = self._broken.pop(epoch, "")
        if how == "weight":
            self.value += float("inf")
        return {"loss": finite_loss(float("inf") if how == "loss" else 1.0)}

    def state_dict(self) -> dict[str, object]:
        return {"nested": {"value": self.value}, "mask": torch.tensor([-torch.inf])}

    def load_state_dict(self, state: dict[str, dict[str, torch.Tensor]]) -> None:
        self.value = state["nested"]["value"]


def test_weights_that_are_no_numbers_count_as_well() -> None:
    """The loss of their step was still one; -inf is how agents mark what is gone."""
    training, notes = Counting({1: "weight", 3: "loss"}), Notes()
    run_epochs(training, 5, stage="x", checkpoint=Checkpoint(None), observer=notes)
    assert training.rates == [1, 1, 0.5, 0.5, 0.5, 0.25, 0.25]
    assert float(training.value) == 5
    assert notes.setbacks[0][1].startswith("'nested.value' is not finite in epoch 2; back")
