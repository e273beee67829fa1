"""Losses and metrics of a user's: what they are given, and that every method goes by them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from decore_toys import Notes, TinyNet, ToyImages
from torch import Tensor, nn
from torch.nn import functional as F

from compressor.checkpoint import Checkpoint
from compressor.compute import Compute
from compressor.cost import Limits, NetworkCosts, as_tensor
from compressor.decore.paper import layer_rewards
from compressor.decore.taylor import taylor_scores
from compressor.errors import InputError
from compressor.graph import channel_graph
from compressor.losses import output_distances
from compressor.methods.method import PruneTask
from compressor.methods.registry import METHODS
from compressor.objective import CLASSIFICATION, Objective, Outputs, UserFunction, tensors_of
from compressor.shrink import Shrinking
from compressor.training import Batch, Recipe, evaluate, fit

CPU = Compute(torch.device("cpu"), mixed_precision=False)


def cross_entropy(outputs: Outputs, labels: Tensor) -> Tensor:
    assert isinstance(outputs, Tensor)
    return F.cross_entropy(outputs, labels, reduction="none")


def right(outputs: Outputs, labels: Tensor) -> Tensor:
    assert isinstance(outputs, Tensor)
    return (outputs.argmax(dim=1) == labels).float()


def objective(
    loss: Callable[..., object] = cross_entropy, metric: Callable[..., object] = right
) -> Objective:
    return Objective(UserFunction("nets:loss", loss), UserFunction("nets:metric", metric))


def trained(chosen: Objective, **recipe: float) -> tuple[nn.Module, float, Notes]:
    torch.manual_seed(0)
    model, notes = TinyNet(), Notes()
    torch.manual_seed(1)
    teacher = TinyNet().eval()
    score = fit(
        model,
        ToyImages(),
        Recipe(epochs=3, learning_rate=0.05, **recipe),
        CPU,
        stage="toy",
        checkpoint=Checkpoint(None),
        observer=notes,
        teacher=teacher,
        objective=chosen,
    )
    return model, score, notes


# -- classification is the special case ------------------------------------------------------------


def test_cross_entropy_and_top1_as_a_users_functions_train_alike() -> None:
    ours, top1, _ = trained(CLASSIFICATION)
    theirs, score, notes = trained(objective())
    assert score == top1
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(mine, other)
    assert [set(values) for _, _, values in notes.epochs] == [{"loss", "validation_score"}] * 3


def test_epochs_are_chosen_by_the_metric() -> None:
    """A metric that wants wrong answers is at odds with the loss: the network as given is best."""

    def wrong(outputs: Outputs, labels: Tensor) -> Tensor:
        assert isinstance(outputs, Tensor)
        return (outputs.argmax(dim=1) != labels).float()

    model, score, notes = trained(objective(metric=wrong))
    assert score > max(values["validation_score"] for _, _, values in notes.epochs)
    assert evaluate(model, ToyImages().validation(), CPU, objective(metric=wrong)) == score


def test_taylor_scores_follow_the_loss() -> None:
    torch.manual_seed(0)
    model = TinyNet().eval()
    graph, images = channel_graph(model, ToyImages().x[:1]), ToyImages()
    plain = taylor_scores(model, graph, images, CPU)
    triple = objective(loss=lambda outputs, labels: 3 * cross_entropy(outputs, labels))
    tripled = taylor_scores(model, graph, images, CPU, objective=triple)
    torch.testing.assert_close(tripled, 9 * plain)


def test_a_metric_between_right_and_wrong_is_rewarded_along_a_line() -> None:
    actions, layer_of = torch.zeros(3, 2), torch.zeros(2, dtype=torch.long)
    rewards = layer_rewards(actions, torch.tensor([1.0, 0.75, 0.0]), layer_of, 1, 4.0)
    assert rewards[:, 0].tolist() == [2.0, 2 * (0.75 - 4 * 0.25), -8.0]


# -- distillation ----------------------------------------------------------------------------------


def test_output_distances_are_the_unexplained_share_of_the_variance() -> None:
    rng = np.random.default_rng(0)
    mine, theirs = rng.normal(size=(2, 5, 3, 4)), rng.normal(size=(2, 5, 6)) * 7 + 2
    pairs = [(mine[0], mine[1]), (theirs[0], theirs[1])]
    expected = np.mean([((a - b) ** 2).reshape(5, -1).mean(1) / b.var() for a, b in pairs], axis=0)
    found = output_distances(*zip(*[map(torch.from_numpy, pair) for pair in pairs], strict=True))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5)


@pytest.mark.parametrize(("constant", "unit"), [(0.0, 1.0), (-3.0, 9.0)])
def test_an_output_that_does_not_vary_is_measured_by_its_size(constant: float, unit: float) -> None:
    mine = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    found = output_distances([mine], [torch.full_like(mine, constant)])
    torch.testing.assert_close(found, (mine - constant).square().mean(1) / unit)


def test_a_users_loss_is_mixed_with_the_distance_to_the_teacher() -> None:
    torch.manual_seed(0)
    outputs, teacher, labels = torch.randn(6, 3), torch.randn(6, 3), torch.arange(6) % 3
    recipe = Recipe(epochs=1, learning_rate=0.1, distillation=0.25)
    found = objective().losses(outputs, labels, teacher, recipe)
    distance = ((outputs - teacher) ** 2).mean(1) / teacher.var(correction=0)
    torch.testing.assert_close(found, 0.75 * cross_entropy(outputs, labels) + 0.25 * distance)
    alone = objective().losses(outputs, labels, None, recipe)
    torch.testing.assert_close(alone, cross_entropy(outputs, labels))
    assert not torch.equal(found, CLASSIFICATION.losses(outputs, labels, teacher, recipe))


# -- what functions are given, and what they may return --------------------------------------------


def test_outputs_are_float32_and_a_single_one_stands_alone() -> None:
    given: list[Outputs] = []

    def note(outputs: Outputs, labels: Tensor) -> Tensor:
        given.append(outputs)
        return torch.zeros(len(labels))

    one, two = torch.zeros(2, 3, dtype=torch.bfloat16), torch.ones(2, 5, 5)
    chosen, labels = objective(loss=note), torch.zeros(2, 4)
    chosen.losses([one], labels)
    chosen.losses({"out": one, "aux": [two]}, labels)
    assert isinstance(given[0], Tensor)
    assert given[0].dtype == torch.float32
    assert [tuple(t.shape) for t in given[1]] == [(2, 3), (2, 5, 5)]
    assert tensors_of("text") == tensors_of(None) == ()


@pytest.mark.parametrize(
    ("returned", "says"),
    [
        (torch.zeros(()), "was a mean taken over the batch?"),
        (torch.zeros(4, 1), "shape (4,)"),
        (np.zeros(4), "it returned ndarray"),
        (None, "it returned NoneType"),
    ],
)
def test_losses_of_another_shape(returned: object, says: str) -> None:
    chosen = objective(loss=lambda outputs, labels: returned)
    with pytest.raises(InputError, match="loss nets:loss: it must return") as caught:
        chosen.losses(torch.zeros(4, 3), torch.zeros(4))
    assert says in str(caught.value)


@pytest.mark.parametrize("worst", [-0.1, 1.5, float("nan")])
def test_scores_outside_0_to_1(worst: float) -> None:
    chosen = objective(metric=lambda outputs, labels: torch.tensor([0.5, worst]))
    with pytest.raises(InputError, match=r"metric nets:metric: .* must lie in \[0, 1\]"):
        chosen.scores(torch.zeros(2, 3), torch.zeros(2))


# -- dense outputs, through every method -----------------------------------------------------------


class Dense(nn.Module):
    """(N, 3, 6, 6) to a map (N, 1, 6, 6)."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.map = nn.Conv2d(8, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.map(self.body(x))


class Planes:
    """Images whose first channel is to be found again."""

    steps_per_epoch = 3

    def __init__(self) -> None:
        self.x = torch.randn(24, 3, 6, 6, generator=torch.Generator().manual_seed(2))

    def train(self, epoch: int) -> Iterator[Batch]:
        for part in self.x.chunk(self.steps_per_epoch):
            yield part, part[:, 0]

    def validation(self) -> Iterator[Batch]:
        yield self.x[:8], self.x[:8, 0]


def squared(outputs: Outputs, labels: Tensor) -> Tensor:
    assert isinstance(outputs, Tensor)
    return (outputs[:, 0] - labels).square().mean(dim=(1, 2))


def closeness(outputs: Outputs, labels: Tensor) -> Tensor:
    return 1 / (1 + squared(outputs, labels))


@pytest.mark.parametrize("name", [name for name in METHODS if name != "dead"])
def test_every_method_prunes_dense_outputs(name: str) -> None:
    torch.manual_seed(0)
    model, images, notes = Dense().eval(), Planes(), Notes()
    graph = channel_graph(model, images.x[:1])
    costs = NetworkCosts(graph)
    whole = float(costs.macs(as_tensor(graph.all_kept())))
    chosen = objective(squared, closeness)
    task = PruneTask(
        start=Shrinking.whole(model, graph),
        graph=graph,
        limits=Limits(costs, {"macs": 0.6 * whole}),
        channel_step=1,
        images=images,
        recipe=Recipe(epochs=2, learning_rate=0.05, distillation=0.5),
        compute=CPU,
        seed=0,
        checkpoint=Checkpoint(None),
        observer=notes,
        teacher=Dense().eval(),
        objective=chosen,
    )
    choice = METHODS[name](task)
    assert 0 < int(choice.keep.sum()) < graph.class_count
    slim, difference = choice.left.cut(choice.keep, images.x[:4])
    assert difference < 1e-9
    before = evaluate(slim, images.validation(), CPU, chosen)
    recipe = Recipe(epochs=20, learning_rate=0.05)
    after = fit(
        slim,
        images,
        recipe,
        CPU,
        stage="finetune",
        checkpoint=Checkpoint(None),
        observer=notes,
        objective=chosen,
    )
    assert after > before
