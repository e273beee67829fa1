"""The loop of everything that trains: whole epochs, each kept in a checkpoint.

Where the loss or a weight becomes no number, the epoch is taken back and done again with half the
learning rate; what comes after it keeps that rate.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor

from compressor import ranks
from compressor.checkpoint import Checkpoint, random_state, restore_random_state

if TYPE_CHECKING:
    from compressor.training import Observer

MAX_HALVINGS = 3


class NotFiniteError(FloatingPointError):
    """The loss, or a weight, is no number any more."""


class DivergedError(FloatingPointError):
    """A training that half the learning rate, and half of that, did not save."""


class Training(Protocol):
    """Work that is done in epochs."""

    def run_epoch(self, epoch: int, rate_factor: float) -> Mapping[str, float]:
        """Do an epoch, numbered from 0; return its means.

        Args:
            rate_factor: what the recipe's learning rate is multiplied by.

        Raises:
            NotFiniteError: the loss is no number any more.
        """

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the next epoch depends on; "epoch" and "random" are taken."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to a saved state; it stays as it is."""


def run_epochs(
    training: Training, epochs: int, *, stage: str, checkpoint: Checkpoint, observer: Observer
) -> None:
    """Do the epochs that the checkpoint hasn't seen yet.

    Raises:
        DivergedError: an epoch failed although the learning rate was halved MAX_HALVINGS times.
    """
    state = checkpoint.load()
    kept: dict[str, Any] = {}  # what a failed epoch goes back to where no checkpoint holds it
    if state is None:
        own = _state(training, 0, 0)
        state = ranks.from_first(lambda: own)
        if not ranks.is_first():
            _go_back(training, state)
        kept = copy.deepcopy(state)
    else:
        _go_back(training, state)
    constants = set(_not_finite(state))  # a network may have such from the start
    epoch, halvings = int(state["epoch"]), int(state.get("halvings", 0))
    while epoch < epochs:
        try:
            values = training.run_epoch(epoch, 0.5**halvings)
            state = _state(training, epoch + 1, halvings)
            if broken := sorted(set(_not_finite(state)) - constants):
                raise NotFiniteError(f"'{broken[0]}' is not finite")
        except NotFiniteError as error:
            if halvings == MAX_HALVINGS:
                raise DivergedError(_given_up(stage, epoch, error)) from error
            halvings += 1
            _go_back(training, checkpoint.load() or copy.deepcopy(kept))
            observer.setback(stage, _setback(epoch, halvings, error))
            continue
        epoch += 1
        observer.epoch(stage, epoch, values)
        checkpoint.save(state)
        kept = {} if checkpoint.path else copy.deepcopy(state)


def finite_loss(loss: float) -> float:
    """Return a loss.

    Raises:
        NotFiniteError: it is no number; the next step would fail at something stranger.
    """
    if not math.isfinite(loss):
        raise NotFiniteError(f"the loss became {loss}")
    return loss


def _state(training: Training, epoch: int, halvings: int) -> dict[str, Any]:
    work = training.state_dict()
    return {**work, "epoch": epoch, "halvings": halvings, "random": random_state()}


def _go_back(training: Training, state: dict[str, Any]) -> None:
    training.load_state_dict(state)
    restore_random_state(state["random"])


def _not_finite(state: Any, name: str = "") -> Iterator[str]:
    """Yield the names of tensors that hold NaN or +inf; agents mark what is gone with -inf."""
    if isinstance(state, Mapping):
        for key, value in state.items():
            yield from _not_finite(value, f"{name}.{key}" if name else str(key))
    elif isinstance(state, Tensor) and not bool((state < math.inf).all()):
        yield name


def _setback(epoch: int, halvings: int, error: NotFiniteError) -> str:
    return (
        f"{error} in epoch {epoch + 1}; back to the end of epoch {epoch}, on with "
        f"1/{2**halvings} of the learning rate"
    )


def _given_up(stage: str, epoch: int, error: NotFiniteError) -> str:
    return (
        f"{stage}: {error} in epoch {epoch + 1}, also with 1/{2**MAX_HALVINGS} of the learning "
        "rate; start anew with a lower --learning-rate"
    )
