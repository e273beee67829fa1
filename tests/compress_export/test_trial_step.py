"""The step of training that is tried before any work: what it refuses; and it leaves no trace."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compress_export.job import checked_task
from compress_export.judging import check_judged
from compress_export.options import JobOptions
from compress_export.task import Task, load_task
from compress_export.trial_step import check_trains
from compressor.errors import InputError


class Net(nn.Module):
    """Batch norm, dropout, logits."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)
        self.drop, self.head = nn.Dropout(0.5), nn.Linear(8, num_classes)

    def features(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x)).relu().mean(dim=(2, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.drop(self.features(x)))


class Overwrites(Net):
    """Writes over what the gradient of a sigmoid needs."""

    def features(self, x: Tensor) -> Tensor:
        y = torch.sigmoid(self.conv(x))
        y += 1
        return y.mean(dim=(2, 3))


class Auxiliary(Net):
    """A second head while it trains."""

    def forward(self, x: Tensor) -> object:
        logits = super().forward(x)
        return (logits, logits) if self.training else logits


class Linear(nn.Sequential):
    """Has no channels between layers."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(nn.Flatten(), nn.Linear(3 * 8 * 8, num_classes))


class InPlace(Net):
    def forward(self, x: Tensor) -> Tensor:
        x *= 2
        return super().forward(x)


def either_loss(outputs: Tensor | tuple[Tensor, ...], labels: Tensor) -> Tensor:
    heads = outputs if isinstance(outputs, tuple) else (outputs,)
    return sum(F.cross_entropy(head, labels, reduction="none") for head in heads)


def either_metric(outputs: Tensor | tuple[Tensor, ...], labels: Tensor) -> Tensor:
    logits = outputs[0] if isinstance(outputs, tuple) else outputs
    return (logits.argmax(dim=1) == labels).float()


def options(kind: type[nn.Module], **said: object) -> JobOptions:
    name = f"{__name__}:{kind.__name__}"
    return JobOptions(board="jetson", model=name, input_size=8, batch_size=4, **said)


@cache
def task(kind: type[nn.Module]) -> Task:
    return load_task(options(kind))


def test_it_leaves_no_trace() -> None:
    """A dropout's mask is the same after it as without it, and statistics stay."""
    given = task(Net)
    before = copy.deepcopy(given.model.state_dict())
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    check_trains(given, distills=True)
    assert torch.equal(torch.rand(4), expected)
    after = given.model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert all(parameter.grad is None for parameter in given.model.parameters())
    assert not given.model.training


def test_a_gradient_that_torch_refuses() -> None:
    check_judged(task(Overwrites))  # in eval mode nothing is wrong with it
    with pytest.raises(InputError, match="in train mode: the gradient .* inplace operation"):
        check_trains(task(Overwrites), distills=True)


def test_other_outputs_in_training_need_functions_that_take_them() -> None:
    own = {"loss": f"{__name__}:either_loss", "metric": f"{__name__}:either_metric"}
    with pytest.raises(InputError, match=r"returns \(N, 10\) and \(N, 10\) in train mode"):
        check_trains(task(Auxiliary), distills=False)
    with pytest.raises(InputError, match="--distill none"):
        checked_task(options(Auxiliary, **own), lambda _: None)
    checked_task(options(Auxiliary, **own, distill="none"), lambda _: None)


def test_a_job_that_trains_nothing_asks_for_no_training() -> None:
    quantizes = {"stages": ("quantize",), "baseline_epochs": 0}
    checked_task(options(Overwrites, **quantizes), lambda _: None)
    with pytest.raises(InputError, match="in train mode"):
        checked_task(options(Overwrites, stages=("quantize",)), lambda _: None)


def test_neither_network_nor_teacher_may_change_the_images() -> None:
    with pytest.raises(InputError, match=r"InPlace: its forward changes the images"):
        check_judged(task(InPlace))
    taught = replace(task(Net), teacher=InPlace(10))
    with pytest.raises(InputError, match="--teacher: its forward changes the images"):
        check_judged(taught)


def test_two_images_are_tried_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batch norm over one value of each channel fails in train mode."""

    class OneImage:
        def validation(self) -> list[tuple[Tensor, Tensor]]:
            return [(torch.randn(1, 3, 3, 3), torch.zeros(1, dtype=torch.int64))]

    monkeypatch.setattr(Task, "images", lambda *_: OneImage())
    check_trains(task(Net), distills=True)


def test_channels_are_asked_for_where_they_are_pruned() -> None:
    checked_task(options(Linear, stages=("quantize", "bench")), lambda _: None)
    with pytest.raises(InputError, match="none of its channels can be pruned"):
        checked_task(options(Linear), lambda _: None)
