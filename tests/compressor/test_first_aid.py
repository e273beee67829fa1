"""Bias correction, equalization and layers left in float, on networks where rounding hurts."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import pytest
import torch
from channel_nets import randomize
from torch import Tensor, nn
from torch.nn import functional as F

from compressor.models import build_model
from compressor.quantization.bias_correction import correct_biases
from compressor.quantization.calls import written
from compressor.quantization.equalization import equalize
from compressor.quantization.fake import FakeQuantized
from compressor.quantization.neutral import fold_norms
from compressor.quantization.points import folded_norms, rounded_beside, rounded_results
from compressor.quantization.scheme import Scheme
from compressor.quantization.sensitivity import (
    Judged,
    Mixture,
    Sensitivity,
    cheapest_within,
    extra_bytes,
    sensitivities,
)

PER_TENSOR = Scheme(per_channel_convolutions=False, per_channel_linear=False)


def block(inputs: int, outputs: int, groups: int = 1) -> list[nn.Module]:
    convolution = nn.Conv2d(inputs, outputs, 3, padding=1, groups=groups, bias=False)
    return [convolution, nn.BatchNorm2d(outputs), nn.ReLU()]


def badly_scaled() -> nn.Module:
    """A triple with a depthwise layer and a pair, whose channels differ a thousandfold."""
    torch.manual_seed(0)
    layers = [*block(3, 8), *block(8, 8, groups=8), *block(8, 8)]
    network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))
    randomize(network)
    with torch.no_grad():
        for norm in (network[1], network[4], network[7]):
            factors = 10 ** torch.linspace(-1.5, 1.5, 8)
            norm.weight.mul_(factors)
            norm.bias.mul_(factors)
        network[3].weight.div_(10 ** torch.linspace(-1.5, 1.5, 8).reshape(-1, 1, 1, 1))
        network[6].weight.div_(10 ** torch.linspace(-1.5, 1.5, 8).reshape(1, -1, 1, 1))
        network[11].weight.div_(10 ** torch.linspace(-1.5, 1.5, 8))
    return network.eval()


def error(network: nn.Module, x: Tensor, scheme: Scheme, expected: Tensor) -> float:
    fake = FakeQuantized(copy.deepcopy(network), scheme, lambda: x.split(16), x[:1])
    with torch.no_grad():
        return float((fake.eval()(x) - expected).pow(2).mean().sqrt() / expected.std())


def spread(weight: Tensor, axis: int) -> float:
    sizes = weight.detach().abs().amax(dim=[i for i in range(weight.dim()) if i != axis])
    return float(sizes.max() / sizes.min())


def test_equalization_keeps_the_function_and_evens_out_the_ranges() -> None:
    network = badly_scaled().double()
    x = torch.randn(4, 3, 8, 8).double()
    expected, before = network(x), copy.deepcopy(network)
    fold_norms(before, folded_norms(before, *written(before, x)))
    assert equalize(network, x[:1]) == [("0", "3", "6"), ("6", "11")]
    torch.testing.assert_close(network(x), expected, rtol=1e-9, atol=1e-9)
    assert spread(network[0].weight, 0) < spread(before[0].weight, 0)
    for one, other in ((0, 3), (6, 11)):
        ranges = network[one].weight.detach().abs().amax(dim=(1, 2, 3))
        following = network[other].weight.detach().abs()
        axis = 0 if other == 3 else 1
        others = following.amax(dim=[i for i in range(following.dim()) if i != axis])
        torch.testing.assert_close(ranges, others, rtol=0.01, atol=0)  # equation 11
    assert spread(network[11].weight, 1) < 0.5 * spread(before[11].weight, 1)


def test_equalization_helps_weights_of_one_scale() -> None:
    network, x = badly_scaled(), torch.randn(32, 3, 8, 8)
    with torch.no_grad():
        expected = network(x)
    before = error(network, x, PER_TENSOR, expected)
    equalize(network, x[:1])
    assert error(network, x, PER_TENSOR, expected) < 0.5 * before


def test_only_channels_that_nothing_else_reads_are_equalized() -> None:
    class Branching(nn.Module):
        def __init__(self, activation: nn.Module) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)
            self.third, self.fourth = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 2, 1, groups=2)
            self.activation = activation

        def forward(self, x: Tensor) -> Tensor:
            shortcut = self.first(x)
            inner = self.activation(self.second(shortcut))
            return self.fourth(self.third(inner) + shortcut)

    x = torch.randn(2, 3, 4, 4)
    assert equalize(Branching(nn.ReLU()), x) == [("second", "third")]
    assert equalize(Branching(nn.PReLU(4)), x) == [("second", "third")]
    assert equalize(Branching(nn.ReLU6()), x) == []
    shared = nn.Conv2d(3, 3, 1)
    assert equalize(nn.Sequential(shared, nn.ReLU(), shared), x) == []


def test_equalization_of_a_whole_network_is_exact() -> None:
    network = randomize(build_model("resnet20", 10)).double().eval()
    x = torch.randn(2, 3, 16, 16).double()
    expected = network(x)
    assert len(equalize(network, x[:1])) == 9  # the pairs inside blocks
    torch.testing.assert_close(network(x), expected, rtol=1e-9, atol=1e-9)


class Mixing(nn.Module):
    """Four channels of four tokens, from a convolution or a linear layer, and what reads them."""

    def __init__(self, first: nn.Module, second: nn.Module, between: Callable[..., Tensor]) -> None:
        super().__init__()
        self.first, self.second, self.between = first, second, between

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.between(self.first(x)))


@pytest.mark.parametrize(
    ("first", "second", "between", "equalized"),
    [
        (nn.Conv2d(3, 4, 4, 4), nn.Linear(4, 5), lambda x: x.flatten(2), False),
        (nn.Conv2d(3, 4, 8, 8), nn.Linear(4, 5), lambda x: x.flatten(1).relu(), True),
        (nn.Conv2d(3, 4, 4, 4), nn.Conv1d(4, 5, 3), lambda x: x.flatten(2).relu(), True),
        (nn.Linear(8, 4), nn.Linear(4, 5), torch.relu, True),
        (nn.Linear(8, 3), nn.Conv2d(3, 5, 3), torch.relu, False),
        (nn.Linear(8, 4), nn.Linear(4, 5), lambda x: F.max_pool2d(x, 3, 1, 1), False),
    ],
)
def test_tokens_are_no_channels(
    first: nn.Module, second: nn.Module, between: Callable[..., Tensor], equalized: bool
) -> None:
    torch.manual_seed(0)
    network = Mixing(first, second, between).double().eval()
    with torch.no_grad():
        for number, channel in enumerate(first.weight):
            channel.mul_(10.0**number)
    x = torch.randn(4, 3, 8, 8).double()
    expected = network(x)
    assert equalize(network, x[:1]) == ([("first", "second")] if equalized else [])
    torch.testing.assert_close(network(x), expected, rtol=1e-9, atol=1e-9)


def layer_means(model: nn.Module, network: nn.Module, names: list[str], x: Tensor) -> list[Tensor]:
    """Means of the channels behind some modules, by hooks."""
    found: list[Tensor] = []
    hooks = [
        network.get_submodule(name).register_forward_hook(
            lambda module, inputs, output: found.append(output)
        )
        for name in names
    ]
    with torch.no_grad():
        model(x)
    for hook in hooks:
        hook.remove()
    return [answer.transpose(0, 1).flatten(1).mean(dim=1) for answer in found]


@pytest.mark.parametrize("scheme", [PER_TENSOR, Scheme(weight_limit=7, activation_bits=None)])
def test_bias_correction_brings_every_layers_mean_back(scheme: Scheme) -> None:
    network, x = badly_scaled(), torch.randn(64, 3, 8, 8)
    before = copy.deepcopy(network)
    with torch.no_grad():
        expected = network(x)
    first = error(network, x, scheme, expected)
    fake = FakeQuantized(network, scheme, lambda: x.split(32), x[:1])
    names = ["1", "4", "7", "11"]
    wanted = layer_means(network, network, names, x)
    off = layer_means(fake.eval(), network, names, x)
    changed = correct_biases(fake, lambda: x.split(32))
    assert list(changed) == ["0", "3", "6", "11"]
    found = layer_means(fake.eval(), network, names, x)
    distance = [float((a - b).norm()) for a, b in zip(found, wanted, strict=True)]
    distance_before = [float((a - b).norm()) for a, b in zip(off, wanted, strict=True)]
    assert sum(distance) < 0.5 * sum(distance_before)
    assert error(network, x, scheme, expected) < first
    before.load_state_dict(network.state_dict())  # an ordinary network of its class


def test_layers_without_a_bias_stay_as_they_are() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.Flatten(), nn.Linear(16, 2))
    x = torch.randn(32, 3, 4, 4)
    weights, expected = network[0].weight.clone(), network(x).detach().mean(dim=0)
    fake = FakeQuantized(network, Scheme(weight_limit=1, activation_bits=None), lambda: [x], x[:1])
    assert list(correct_biases(fake, lambda: [x])) == ["2"]
    assert torch.equal(network[0].weight, weights)
    with torch.no_grad():
        torch.testing.assert_close(fake(x).mean(dim=0), expected)


def test_norms_without_parameters_take_the_correction_in_their_mean() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), nn.BatchNorm2d(4, affine=False)).eval()
    x = torch.randn(32, 3, 4, 4)
    with torch.no_grad():
        expected = network(x).mean(dim=(0, 2, 3))
        scheme = Scheme(weight_limit=1, activation_bits=None)
        fake = FakeQuantized(network, scheme, lambda: [x], x[:1])
        correct_biases(fake, lambda: [x])
        torch.testing.assert_close(fake(x).mean(dim=(0, 2, 3)), expected)


def test_layers_left_in_float_have_exact_weights_and_nothing_rounded_between_them() -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 1)
    )
    x = torch.randn(8, 3, 4, 4)
    calls, outputs = written(network, x)
    points = rounded_results(calls, outputs, outputs_too=True)
    assert sorted(points) == [-1, 1, 3, 4]
    assert rounded_beside(calls, points, {0}, True) == points
    assert rounded_beside(calls, points, {0}, False) == points - {-1}
    assert rounded_beside(calls, points, {0, 2}, True) == points - {1}
    assert rounded_beside(calls, points, {2, 4}, True) == points - {3}
    fake = FakeQuantized(network, Scheme(), lambda: [x], x[:1])
    fake.eval().float_layers = frozenset({"0", "2", "4"})
    torch.testing.assert_close(fake(x), network(x), rtol=0, atol=0)
    with pytest.raises(ValueError, match="no layer is called 'head'"):
        fake.float_layers = frozenset({"head"})


def sensitive() -> tuple[FakeQuantized, Tensor, Tensor]:
    """Three linear layers; with one scale per weight the second can't be rounded."""
    torch.manual_seed(1)
    layers = OrderedDict(
        small=nn.Linear(8, 8), wild=nn.Linear(8, 8), wide=nn.Linear(8, 64), last=nn.Linear(64, 3)
    )
    with torch.no_grad():
        layers["small"].weight[0] = layers["small"].bias[0] = 0
        layers["wild"].weight[0, 0] = 1000  # never used, and the scale of all others
    network = nn.Sequential(layers)
    x = torch.randn(64, 8)
    with torch.no_grad():
        labels = network(x).argmax(dim=1)
    scheme = Scheme(activation_bits=None, per_channel_linear=False)
    return FakeQuantized(network, scheme, lambda: [x], x[:1]), x, labels


def test_the_layer_that_rounding_breaks_is_found_and_left_in_float() -> None:
    fake, x, labels = sensitive()

    def judge(model: nn.Module) -> Judged:
        with torch.no_grad():
            answers = model(x)
        loss = nn.functional.cross_entropy(answers, labels)
        return Judged(float((answers.argmax(dim=1) == labels).float().mean()), float(loss))

    ranking = sensitivities(fake, judge)
    assert [entry.layer for entry in ranking] == ["small", "wild", "wide", "last"]
    assert [entry.extra_bytes for entry in ranking] == [192, 192, 1536, 576]
    assert fake.float_layers == frozenset()
    assert max(ranking, key=lambda entry: entry.left).layer == "wild"
    rounded = judge(fake).score
    search = cheapest_within(fake, judge, 0.95, lambda: ranking)
    assert search.ranking == ranking
    assert rounded < 0.95
    assert search.chosen is not None
    assert "wild" in search.chosen.layers
    assert search.chosen.judged.score >= 0.95
    assert search.chosen.extra_bytes < sum(entry.extra_bytes for entry in ranking)
    assert search.tried[0].layers == ()
    assert len(search.tried[1].layers) == 4


def test_layers_are_not_ranked_where_that_could_not_help() -> None:
    fake, _, _ = sensitive()

    def rank() -> Any:
        raise AssertionError("ranked")

    def judge(model: FakeQuantized) -> Judged:
        return Judged(0.5 + 0.1 * len(model.float_layers), 1.0)

    unreachable = cheapest_within(fake, judge, 0.95, rank)
    assert (unreachable.chosen, unreachable.ranking) == (None, ())
    assert [len(mixture.layers) for mixture in unreachable.tried] == [0, 4]
    enough = cheapest_within(fake, judge, 0.45, rank)
    assert enough.chosen is not None
    assert enough.chosen.layers == ()


def test_a_file_of_integers_keeps_some() -> None:
    """The largest layer comes in last; with all in float, those that aren't needed go again."""
    fake, _, _ = sensitive()
    ranking = [Sensitivity(name, 0.1, 0.1, extra_bytes(fake, name)) for name in fake.layers]

    def chosen(needed: set[str]) -> Mixture | None:
        def judge(model: FakeQuantized) -> Judged:
            return Judged(float(needed <= model.float_layers), 1.0)

        return cheapest_within(fake, judge, 0.5, lambda: ranking).chosen

    largest = chosen({"wide"})
    assert largest is not None
    assert largest.layers == ("wide",)
    assert chosen(set(fake.layers)) is None
