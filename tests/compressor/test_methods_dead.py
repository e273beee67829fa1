"""Channels that do nothing: found, folded, gone, and no answer changes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from channel_nets import TinyResNet, masked, randomize, relative
from decore_toys import Notes, ToyImages
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from compressor.checkpoint import Checkpoint
from compressor.compute import Compute
from compressor.cost import Limits, NetworkCosts, as_tensor
from compressor.decore.projection import TargetError
from compressor.difference import answers
from compressor.graph import ChannelGraph, Keep, channel_graph
from compressor.methods.dead import Dead, find_dead, fold_constants
from compressor.methods.method import PruneTask
from compressor.methods.registry import METHODS
from compressor.models import build_model
from compressor.shrink import Shrinking
from compressor.slim import slim
from compressor.training import Images, Recipe

CPU = Compute(torch.device("cpu"), mixed_precision=False)


class PointwiseNet(nn.Module):
    """A residual stream without any padding: 1x1 convolutions, one valid 3x3, a grouped one.

    Every kind of reader is there: with a bias, with a batch norm behind it, linear.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 1, bias=False)
        self.norm = nn.BatchNorm2d(6)
        self.up1 = nn.Conv2d(6, 8, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.down1 = nn.Conv2d(8, 6, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(6)
        self.wide = nn.Conv2d(6, 8, 3)
        self.grouped = nn.Conv2d(8, 8, 2, groups=2)
        self.head = nn.Linear(8, 3)
        for layer in (self.wide, self.grouped):
            layer.bias.data.fill_(1.0)  # no channel is silent by chance

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.norm(self.stem(x)))
        out = F.relu(out + self.bn2(self.down1(F.relu(self.bn1(self.up1(out))))))
        out = F.relu(self.grouped(F.relu(self.wide(out))))
        return self.head(out.mean((2, 3)))


def built(kind: type[nn.Module]) -> tuple[nn.Module, ChannelGraph]:
    torch.manual_seed(0)
    model = calibrated(randomize(kind()).double())
    return model, channel_graph(model, ToyImages().x[:1].double())


def calibrated(model: nn.Module) -> nn.Module:
    """Measure all batch norms, so that no channel is silent by chance."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
            module.reset_running_stats()
    with torch.no_grad():
        model.train()(ToyImages().x.double())
    return model.eval()


class DoubleImages(ToyImages):
    """Toy images in float64."""

    def __init__(self) -> None:
        super().__init__()
        self.x = self.x.double()


HELD_OUT = torch.randn(64, 3, 6, 6, generator=torch.Generator().manual_seed(99)).double()


def group_of(graph: ChannelGraph, name: str) -> np.ndarray:
    return next(group.classes for group in graph.groups if group.name == name)


def silence(norm: nn.BatchNorm2d, channels: list[int], to: float) -> None:
    """Let a batch norm always answer the same."""
    norm.weight.data[channels] = 0
    norm.bias.data[channels] = to


def stays(
    model: nn.Module, graph: ChannelGraph, images: Images, compute: Compute, batches: int = 2
) -> Keep:
    return find_dead(model, graph, images, compute, batches).keep


def smaller(found: Dead, graph: ChannelGraph) -> nn.Module:
    return slim(found.folded, graph, found.keep)


def subsets(count: int, largest: int | None = None) -> st.SearchStrategy[list[int]]:
    numbers = st.integers(0, count - 1)
    return st.lists(numbers, unique=True, max_size=largest or count).map(sorted)


@settings(max_examples=25)
@given(dead=subsets(6, largest=5), hidden=subsets(8), constant=subsets(8), unread=subsets(2))
def test_planted_channels_go_and_no_answer_changes(
    dead: list[int], hidden: list[int], constant: list[int], unread: list[int]
) -> None:
    """In the stream: dead. Hidden: dead or constant. In front of the grouped layer: unread."""
    model, graph = built(PointwiseNet)
    silence(model.norm, dead, -1.0)
    silence(model.bn2, dead, 0.0)
    silence(model.bn1, constant, 0.7)
    silence(model.bn1, hidden, -0.2)
    # channel j and its partner j + 4 of the other group live or die together
    model.grouped.weight.data[:, unread] = 0
    calibrated(model)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = find_dead(model, graph, DoubleImages(), CPU)

    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    with torch.no_grad():
        assert relative(smaller(found, graph)(HELD_OUT), model(HELD_OUT)) < 1e-9
    assert found.difference < 1e-9
    gone = set(np.flatnonzero(~found.keep).tolist())
    stream, inner = group_of(graph, "stem"), group_of(graph, "up1")
    planted = set(stream[dead].tolist()) | set(inner[sorted({*hidden, *constant})].tolist())
    planted |= set(group_of(graph, "wide")[unread].tolist())
    assert gone == planted
    assert found.unread + found.silent + found.constant == len(gone)


def test_nothing_goes_from_a_network_that_works() -> None:
    model, graph = built(TinyResNet)
    found = find_dead(model, graph, DoubleImages(), CPU)
    assert found.keep.all()
    assert found.difference == 0


def test_dead_in_a_padded_residual_stream() -> None:
    """A stream channel dies only if every layer that adds to it is silent there."""
    model, graph = built(TinyResNet)
    stream = group_of(graph, "stem")
    silence(model.norm, [1, 2], 0.0)
    silence(model.block1.bn2, [1, 2], 0.0)
    silence(model.block2.bn2, [2], -0.1)  # alive in channel 1, behind the second block only
    calibrated(model)
    keep = stays(model, graph, DoubleImages(), CPU)
    assert np.flatnonzero(~keep).tolist() == [stream[2]]
    with torch.no_grad():
        found = masked(model, graph, keep, HELD_OUT)
        assert relative(found, model(HELD_OUT)) == 0


def test_constants_in_front_of_padding_stay() -> None:
    """The border of the next layer would see zeros where it saw the constant."""
    model, graph = built(TinyResNet)
    silence(model.block1.bn1, [0], 0.5)  # read by a padded 3x3
    assert find_dead(model, graph, DoubleImages(), CPU).constant == 0
    model.block1.conv2.padding_mode = "replicate"  # which continues a constant as it is
    model.block1.conv2._reversed_padding_repeated_twice = [1, 1, 1, 1]
    found = find_dead(model, graph, DoubleImages(), CPU)
    assert (found.constant, found.silent, found.unread) == (1, 0, 0)
    assert found.difference < 1e-9


def test_constant_without_a_place_to_fold_it_stays() -> None:
    """No bias and no batch norm: a new bias would be a network of another form."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 5, 1, bias=False),
        nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 3),
    ).double().eval()  # fmt: skip
    silence(model[1], [2], 0.4)
    graph = channel_graph(model, ToyImages().x[:1].double())
    assert find_dead(model, graph, DoubleImages(), CPU).constant == 0
    model[3].bias = nn.Parameter(torch.zeros(5).double())
    graph = channel_graph(model, ToyImages().x[:1].double())
    assert find_dead(model, graph, DoubleImages(), CPU).constant == 1


def test_a_float32_network_stays_one() -> None:
    torch.manual_seed(0)
    model = randomize(build_model("resnet20", 3)).eval()
    graph = channel_graph(model, ToyImages().x[:1])
    silence(model.get_submodule("layer2.1.bn1"), [3, 5], -0.5)
    found = find_dead(model, graph, ToyImages(), CPU)
    gone = np.flatnonzero(~found.keep)
    planted = group_of(graph, "layer2.1.conv1")[[3, 5]]
    assert set(planted.tolist()) <= set(gone.tolist())
    x = HELD_OUT.float()
    with torch.no_grad():
        assert relative(smaller(found, graph)(ToyImages().x), model(ToyImages().x)) < 1e-4
    assert smaller(found, graph)(x).dtype == torch.float32


def test_unread_channels_may_say_anything() -> None:
    """Proved by the weights: no image is needed to know it."""
    model, graph = built(TinyResNet)
    model.block2.conv2.weight.data[:, [0, 3]] = 0
    keep = stays(model, graph, DoubleImages(), CPU, batches=1)
    assert np.flatnonzero(~keep).tolist() == group_of(graph, "block2.conv1")[[0, 3]].tolist()


def test_what_is_observed_is_no_proof() -> None:
    """A channel that answers only to images unlike the observed ones goes, and the check tells."""
    model, graph = built(PointwiseNet)
    model.up1.weight.data[0] = 1.0
    silence(model.bn1, [0], 0.0)
    model.bn1.weight.data[0] = 1.0
    model.bn1.running_mean.data[0] = 1e3  # opens for very bright images only
    images = DoubleImages()
    keep = stays(model, graph, images, CPU)
    assert not keep[group_of(graph, "up1")[0]]
    images.validation = lambda: [(images.x * 1e4, images.labels)]  # type: ignore[method-assign]
    assert find_dead(model, graph, images, CPU).difference > 1e-6


@pytest.mark.parametrize("with_norm", [False, True])
def test_folding_against_the_layer_itself(with_norm: bool) -> None:
    torch.manual_seed(2)
    reader = nn.Conv2d(6, 4, 3, groups=2, bias=not with_norm)
    tail: list[nn.Module] = [nn.BatchNorm2d(4)] if with_norm else []
    model = nn.Sequential(
        nn.Conv2d(3, 6, 1), reader, *tail, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(4, 3),
    ).double()  # fmt: skip
    model = randomize(model).double().eval()
    graph = channel_graph(model, ToyImages().x[:1].double())
    keep = graph.all_kept()
    first = next(consumer for consumer in graph.consumers if consumer.module == "1").classes
    keep[[first[1], first[4]]] = False
    constants = {
        consumer.module: torch.zeros(len(consumer.classes)).double() for consumer in graph.consumers
    }
    constants["1"] = torch.randn(6).double()
    folded = fold_constants(model, graph, keep, constants)

    x = torch.randn(5, 6, 6, 6).double()
    gone = torch.from_numpy(~keep[first])
    full = torch.where(gone[:, None, None], constants["1"][:, None, None], x)
    empty = torch.where(gone[:, None, None], 0.0, x)
    with torch.no_grad():
        torch.testing.assert_close(folded[1:](empty), model[1:](full), rtol=1e-10, atol=1e-12)


def dead_task(start: Shrinking, graph: ChannelGraph, share: float) -> PruneTask:
    costs = NetworkCosts(graph)
    return PruneTask(
        start=start,
        graph=graph,
        limits=Limits(costs, costs.shares({"macs": share}, as_tensor(graph.all_kept()))),
        channel_step=8,
        images=DoubleImages(),
        recipe=Recipe(0, 0.1),
        compute=CPU,
        seed=0,
        checkpoint=Checkpoint(None),
        observer=Notes(),
    )


def test_as_a_method_it_counts_in_the_whole_network() -> None:
    """Also where an earlier round has cut something; the answers stay those before the choice."""
    model, graph = built(PointwiseNet)
    silence(model.norm, [1], -1.0)
    silence(model.bn2, [1], 0.0)
    silence(model.bn1, [0, 3], 0.7)
    calibrated(model)
    first = graph.all_kept()
    first[group_of(graph, "up1")[5]] = False  # somebody's choice, not dead
    start = Shrinking.whole(model, graph).without(first, HELD_OUT)
    choice = METHODS["dead"](dead_task(start, graph, share=1.0))
    gone = {group_of(graph, "stem")[1], *group_of(graph, "up1")[[0, 3, 5]]}
    assert set(np.flatnonzero(~choice.keep).tolist()) == gone
    assert choice.left.classes.tolist() == start.classes.tolist()
    assert choice.keep.tolist() == np.isfinite(choice.ranking).tolist()
    with torch.no_grad():
        expected = start.model(HELD_OUT)
        slimmed, difference = choice.left.cut(choice.keep, HELD_OUT)
        assert relative(slimmed(HELD_OUT), expected) < 1e-9
    assert difference < 1e-9


class FourGroups(nn.Module):
    """Two inputs per group, of which nobody reads the second: what is left is depthwise."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.grouped = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, groups=4)
        self.mix, self.head = nn.Conv2d(8, 4, 1), nn.Linear(4, 3)
        self.grouped.weight.data[:, 1] = 0
        for layer in (self.stem, self.grouped, self.mix):
            layer.bias.data.fill_(1.0)  # no channel is silent by chance

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.mix(F.relu(self.grouped(F.relu(self.stem(x))))))
        return self.head(out.mean((2, 3)))


def test_one_channel_per_group_may_be_left() -> None:
    torch.manual_seed(0)
    model = FourGroups().double().eval()
    graph = channel_graph(model, ToyImages().x[:1].double())
    choice = METHODS["dead"](dead_task(Shrinking.whole(model, graph), graph, share=1.0))
    slimmed, difference = choice.left.cut(choice.keep, HELD_OUT)
    assert slimmed.grouped.weight.shape == (8, 1, 3, 3)
    with torch.no_grad():
        assert relative(slimmed(HELD_OUT), model(HELD_OUT)) < 1e-9
    assert difference < 1e-9


class ManyAnswers(nn.Module):
    """Two maps of different sizes, in a tuple or a dict."""

    def __init__(self, named: bool) -> None:
        super().__init__()
        self.stem, self.large, self.small = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 2, 1), nn.Linear(6, 3)
        self.stem.bias.data.fill_(1.0)
        self.stem.weight.data[2], self.stem.bias.data[2] = 0, 0.5
        self.named = named

    def forward(self, x: Tensor) -> dict[str, Tensor] | tuple[Tensor, Tensor]:
        out = F.relu(self.stem(x))
        both = self.large(out), self.small(out.mean((2, 3)))
        return dict(zip(("large", "small"), both, strict=True)) if self.named else both


@pytest.mark.parametrize("named", [False, True])
def test_networks_with_several_outputs(named: bool) -> None:
    torch.manual_seed(0)
    model = ManyAnswers(named).double().eval()
    graph = channel_graph(model, ToyImages().x[:1].double())
    found = find_dead(model, graph, DoubleImages(), CPU)
    assert (found.constant, found.silent, found.unread) == (1, 0, 0)
    assert found.difference < 1e-9
    pairs = zip(answers(smaller(found, graph), HELD_OUT), answers(model, HELD_OUT), strict=True)
    assert all(relative(one, other) < 1e-9 for one, other in pairs)


def test_as_a_method_it_says_what_it_cannot_reach() -> None:
    model, graph = built(PointwiseNet)
    with pytest.raises(TargetError, match=r"without its dead channels, macs is 2\.00 times") as e:
        METHODS["dead"](dead_task(Shrinking.whole(model, graph), graph, share=0.5))
    assert e.value.worst_ratio == pytest.approx(2.0)
