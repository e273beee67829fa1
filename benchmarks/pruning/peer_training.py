"""Sparse training: the peers' own recipe before they prune."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from benchmarks.pruning.peer_forms import Form, supported_form
from benchmarks.pruning.peers import PEERS, example_of, make_pruner, peer_named
from compressor.checkpoint import Checkpoint
from compressor.compute import Compute
from compressor.errors import InputError
from compressor.graph import channel_graph
from compressor.training import Batch, Images, Observer, Recipe, fit


def sparse_train(
    name: str,
    model: nn.Module,
    images: Images,
    recipe: Recipe,
    compute: Compute,
    *,
    checkpoint: Checkpoint,
    observer: Observer,
    form: Form = "projection",
) -> nn.Module:
    """Train a copy of a network with a peer's own regularizer, for `prune_with_peer(sparse=...)`.

    As the authors do it: `regularize` between the backward pass and the step, no weight decay
    besides. The last epoch's weights are returned, since the best on validation images would be the
    least sparse; the validation accuracy that the observer sees is therefore 0. (The authors train
    100 epochs at a rate of 0.01, divided by 10 after 60 and 80.)

    Args:
        name: key of `PEERS` of a peer with a regularizer.
        model: left as it was.
        images: to train on.
        recipe: its weight decay is not used.
        compute: device and arithmetic.
        checkpoint: for resuming.
        observer: sees steps and epochs.
        form: as in `prune_with_peer`.

    Raises:
        InputError: no such peer, or one without a regularizer.
    """
    peer = peer_named(name)
    if not peer.sparse:
        choices = ", ".join(key for key, other in PEERS.items() if other.sparse)
        raise InputError(f"{name} has no sparse training; {choices} have")
    network, example = supported_form(model, form).cpu(), example_of(images)
    graph = channel_graph(network, example)
    compute.place(network)
    pruner = make_pruner(peer, network, graph, form, peer.importance(), example, compute)
    with _before_every_step(partial(pruner.regularize, network)):
        fit(
            network,
            NothingToValidate(images),
            replace(recipe, weight_decay=0.0),
            compute,
            stage=f"sparse {name}",
            checkpoint=checkpoint,
            observer=observer,
        )
    return network


@contextmanager
def _before_every_step(action: Callable[[], Any]) -> Iterator[None]:
    """Do something after each backward pass, before the optimizer's step."""
    handle = register_optimizer_step_pre_hook(lambda *_: action())
    try:
        yield
    finally:
        handle.remove()


@dataclass(frozen=True)
class NothingToValidate:
    """Training images alone: all epochs look equally good to `fit`, which then keeps the last."""

    images: Images

    @property
    def steps_per_epoch(self) -> int:
        return self.images.steps_per_epoch

    def train(self, epoch: int) -> Iterable[Batch]:
        return self.images.train(epoch)

    def validation(self) -> list[Batch]:
        return []
