"""Processes that train one network together: the ranks of a job that torchrun started.

Every process goes through the same job in the same order and holds the same weights and agents.
They differ in the images of a batch that they train on; what comes of those is added up over all of
them before anything is changed. With one process, nothing here does anything.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch import distributed as group
from torch.distributed.rendezvous import rendezvous

T = TypeVar("T")

_PATIENCE = timedelta(days=1)
"""The others wait while the first one exports and measures. A process that died is noticed at once:
its connections close."""


class PeerLostError(RuntimeError):
    """Another process of the job has ended."""


@contextmanager
def joined() -> Iterator[None]:
    """Be one of the processes that torchrun started, until the block ends.

    Tensors on the CPU travel by gloo, those on a GPU by nccl; the process computes on the GPU of
    its number on this machine.
    """
    backend = "cpu:gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
        backend += ",cuda:nccl"
    with _peers():
        store, number, together = next(rendezvous("env://", timeout=_PATIENCE))
        if os.environ.get("TORCH_DISABLE_SHARE_RDZV_TCP_STORE") != "1":
            # It still holds the addresses of the processes that were there before a restart.
            life = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
            store = group.PrefixStore(life, store)  # type: ignore[attr-defined]
        group.init_process_group(
            backend, timeout=_PATIENCE, store=store, rank=number, world_size=together
        )
    try:
        yield
    finally:
        group.destroy_process_group()


def count() -> int:
    """Return how many processes train together."""
    return group.get_world_size() if group.is_available() and group.is_initialized() else 1


def rank() -> int:
    """Return this process's number among them, from 0."""
    return group.get_rank() if count() > 1 else 0


def is_first() -> bool:
    """Return whether this is the process that writes."""
    return rank() == 0


def from_first(make: Callable[[], T]) -> T:
    """Return what the first process makes, in all of them; the others get its tensors on the CPU.

    Args:
        make: called in the first process alone; returns tensors and plain values, nested in
            dictionaries, lists and tuples.
    """
    if count() == 1:
        return make()
    made, data = None, torch.empty(0, dtype=torch.uint8)
    if is_first():
        made = make()
        buffer = io.BytesIO()
        torch.save(made, buffer)
        data = torch.frombuffer(bytearray(buffer.getvalue()), dtype=torch.uint8)
    size = torch.tensor(len(data))
    with _peers():
        group.broadcast(size, 0)
        if not is_first():
            data = torch.empty(int(size), dtype=torch.uint8)
        group.broadcast(data, 0)
    if is_first():
        return made  # type: ignore[return-value]
    file = io.BytesIO(data.numpy().tobytes())
    received: T = torch.load(file, map_location="cpu", weights_only=True)
    return received


def added(values: Tensor) -> Tensor:
    """Add a tensor of one shape up over all processes, in place; return it."""
    if count() > 1:
        with _peers():
            group.all_reduce(values)
    return values


def own_random() -> None:
    """Let this process's networks draw other numbers than those of the others, from here on."""
    if rank():
        torch.manual_seed(torch.initial_seed() + rank())


@dataclass(frozen=True)
class Share:
    """What one process does of a batch.

    Attributes:
        images: of the whole batch.
        parts: processes that it is dealt out to, image by image; 1 where this one does all of it.
        repeats: processes that do the same.
    """

    images: int
    parts: int = 1
    repeats: int = 1

    @property
    def divisor(self) -> int:
        """Images over all processes: what the sum over one's own images is divided by."""
        return self.images * self.repeats

    def of(self, values: Tensor) -> Tensor:
        """Return one's own rows of something that has a row for every image."""
        return values if self.parts == 1 else values[rank() :: self.parts]

    def first(self, images: int) -> int:
        """Return how many of one's own rows are among the first rows of the batch."""
        images = min(images, self.images)
        return images if self.parts == 1 else len(range(rank(), images, self.parts))

    def mean(self, own: Tensor) -> Tensor:
        """Return this process's part of the mean over the batch: of all parts, the sum is the mean.

        Args:
            own: a value for each of one's own images, shape (n,).
        """
        return own.mean() if self.divisor == len(own) else own.sum() / self.divisor

    def union(self, own: Tensor, rows: int | None = None) -> Tensor:
        """Return the rows of the batch, or its first ones, from everybody's own of these."""
        if self.parts == 1:
            return own
        rows = self.images if rows is None else rows
        everything = own.new_zeros(rows, *own.shape[1:])
        everything[rank() :: self.parts] = own
        return added(everything)


def share(images: int) -> Share:
    """Deal out a batch; every process gets at least two images, or else all of them get all.

    Batch norm can't train on a single one.
    """
    together = count()
    if together == 1:
        return Share(images)
    if images < 2 * together:
        return Share(images, repeats=together)
    return Share(images, parts=together)


def add_up(model: nn.Module, loss: Tensor) -> float:
    """Add up gradients and loss over all processes, right after `backward`; return the loss.

    Running statistics of batch norms that are training become the mean of those of all processes:
    each of them normalizes by the statistics of its own images.
    """
    if count() == 1:
        return float(loss.detach())
    parameters = [p for p in model.parameters() if p.requires_grad]
    statistics = [s for m in model.modules() for s in _statistics(m)]
    used = [0.0 if p.grad is None else 1.0 for p in parameters]
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    sent = [*gradients, *(s / count() for s in statistics), loss.detach(), loss.new_tensor(used)]
    received = added(torch.cat([tensor.reshape(-1) for tensor in sent]))
    pieces = received.split([tensor.numel() for tensor in sent])
    for parameter, piece, anywhere in zip(
        parameters, pieces, pieces[-1].tolist(), strict=False
    ):  # the others' as well: what nobody used has no gradient
        parameter.grad = piece.view_as(parameter).to(parameter.dtype) if anywhere else None
    for statistic, piece in zip(statistics, pieces[len(parameters) :], strict=False):
        statistic.copy_(piece.view_as(statistic))
    return float(pieces[-2])


def _statistics(module: nn.Module) -> list[Tensor]:
    if not module.training or getattr(module, "running_mean", None) is None:
        return []
    found: Any = (module.running_mean, module.running_var)
    return list(found)


@contextmanager
def _peers() -> Iterator[None]:
    """Say in our words what an error means in what processes send each other."""
    try:
        yield
    except RuntimeError as error:
        raise PeerLostError("another process of this job has ended, or can't be reached") from error
