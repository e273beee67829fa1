"""Which epoch a training leaves: the latest that isn't clearly worse than the best."""

from __future__ import annotations

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor, nn

from compressor.epoch_choice import EpochChoice, clearly_above


def network(number: int) -> nn.Module:
    """One that can be told from others by its only weight."""
    made = nn.Linear(1, 1, bias=False)
    nn.init.constant_(made.weight, float(number))
    return made


def chosen_of(epochs: list[Tensor]) -> tuple[int, float]:
    choice = EpochChoice()
    for number, scores in enumerate(epochs):
        choice.offer(network(number), scores)
    return int(choice.weights["weight"]), choice.score


def right(images: int, wrong: int) -> Tensor:
    """The last `wrong` of the images are answered wrongly."""
    return (torch.arange(images) < images - wrong).float()


@st.composite
def histories(draw: st.DrawFn) -> list[Tensor]:
    images = draw(st.integers(1, 40))
    answers = st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=images, max_size=images)
    return [torch.tensor(epoch) for epoch in draw(st.lists(answers, min_size=1, max_size=6))]


_ONES = torch.cat((torch.zeros(27), torch.ones(11)))
_AS_GOOD = torch.cat((torch.zeros(26), torch.tensor([0.5, 1, 1, 1, 1, 0.5]), torch.ones(6)))


@given(histories())
@example([_ONES, _AS_GOOD, torch.cat((torch.zeros(31), torch.ones(7)))])  # two equally good ones
def test_the_chosen_is_the_latest_that_was_not_clearly_worse(epochs: list[Tensor]) -> None:
    chosen, score = chosen_of(epochs)
    means = [float(scores.double().mean()) for scores in epochs]
    # Of several equally high ones the latest, as everywhere.
    best_until = [max(range(n + 1), key=lambda k: (means[k], k)) for n in range(len(epochs))]
    worse = [
        clearly_above(epochs[best].double(), scores.double())
        for best, scores in zip(best_until, epochs, strict=True)
    ]
    assert chosen == max(n for n, is_worse in enumerate(worse) if not is_worse)
    assert score == pytest.approx(means[chosen])


@given(histories())
def test_clearly_is_two_standard_errors_of_the_pairs(epochs: list[Tensor]) -> None:
    one, other = epochs[0].double(), epochs[-1].double()
    differences = (one - other).numpy()
    if len(differences) < 2 or differences.std() < 1e-9:
        return
    t = stats.ttest_rel(one.numpy(), other.numpy()).statistic
    if abs(t - 2) > 1e-9:
        assert clearly_above(one, other) == (t > 2)


def test_a_lucky_epoch_among_many_is_passed_over() -> None:
    """Nobody knows from 144 images that 144 right ones are better than 142."""
    assert chosen_of([right(144, 20), right(144, 0), right(144, 2)])[0] == 2


def test_many_images_tell_epochs_apart() -> None:
    assert chosen_of([right(10000, 1000), right(10000, 0), right(10000, 100)])[0] == 1


def test_a_steady_loss_ends_at_the_best() -> None:
    """Differences that are the same on all images have no error at all."""
    levels = [0.3, 0.9, 0.8, 0.7]
    assert chosen_of([torch.full((50,), level) for level in levels])[0] == 1


def test_without_images_the_last_epoch_counts() -> None:
    assert chosen_of([torch.zeros(0)] * 3) == (2, 0.0)
