"""Fake quantization against torch's observers, plain arithmetic and the float network."""

from __future__ import annotations

import copy

import pytest
import torch
from channel_nets import randomize
from decore_toys import Notes, TinyNet, ToyImages
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.ao.quantization.observer import MinMaxObserver, PerChannelMinMaxObserver
from torch.nn import functional as F

from compressor.checkpoint import Checkpoint
from compressor.compute import Compute
from compressor.models import build_model
from compressor.quantization.calls import written
from compressor.quantization.fake import FakeQuantized
from compressor.quantization.grid import Grid, rounded_bias, rounded_weight, weight_scales
from compressor.quantization.neutral import fold_norms
from compressor.quantization.points import INPUT, folded_norms, rounded_results
from compressor.quantization.scheme import Scheme
from compressor.training import Recipe, fit

reals = st.floats(-1e3, 1e3, allow_subnormal=False, width=32)


@given(st.lists(reals, min_size=2, max_size=20))
def test_grids_of_activations_are_those_of_torchs_observer(values: list[float]) -> None:
    x = torch.tensor(values)
    if float(x.abs().max()) < 1e-3:
        return  # torch's smallest scale is another
    observer = MinMaxObserver(dtype=torch.quint8, qscheme=torch.per_tensor_affine)
    observer(x)
    scale, zero_point = observer.calculate_qparams()
    grid = Grid.of_range(float(x.min()), float(x.max()), 8, symmetric=False)
    assert grid.scale == pytest.approx(float(scale), rel=1e-6)
    assert abs(grid.zero_point - int(zero_point)) <= 1  # where -low / scale is at a half
    assert float(grid.rounded(torch.zeros(1))) == 0.0


@given(st.lists(reals, min_size=2, max_size=20), st.sampled_from([8, 16]))
def test_symmetric_grids_hold_the_range_within_half_a_step(values: list[float], bits: int) -> None:
    x = torch.tensor(values)
    grid = Grid.of_range(float(x.min()), float(x.max()), bits, symmetric=True)
    assert grid.zero_point == 0
    assert float((grid.rounded(x) - x).abs().max()) <= grid.scale * 0.51 + 1e-6


def test_beyond_a_symmetric_range_all_integers_are_used() -> None:
    x = torch.tensor([-9.0, -1.0041, -1.0, 0.3, 1.0, 9.0])
    found = Grid.of_range(-1, 1, 8, symmetric=True).rounded(x)
    torch.testing.assert_close(found, (x * 127).round().clamp(-128, 127) / 127)  # as int8 saturates


@pytest.mark.parametrize("limit", [1, 7, 127])
@pytest.mark.parametrize("axis", [0, 1])
def test_weights_per_channel_are_those_of_torchs_observer(limit: int, axis: int) -> None:
    weight = torch.randn(5, 4, 3, 3, generator=torch.Generator().manual_seed(limit))
    observer = PerChannelMinMaxObserver(
        ch_axis=axis,
        dtype=torch.qint8,
        qscheme=torch.per_channel_symmetric,
        quant_min=-limit,
        quant_max=limit,
    )
    observer(weight)
    scales = weight_scales(weight, limit, axis)
    torch.testing.assert_close(scales, observer.calculate_qparams()[0])
    found = rounded_weight(weight, scales, limit, axis)
    for channel, scale in zip(found.unbind(axis), scales, strict=True):
        steps = channel / scale
        torch.testing.assert_close(steps, steps.round())
        assert int(steps.round().abs().max()) == limit


def test_a_weight_with_one_scale_uses_one_grid() -> None:
    weight = torch.randn(5, 4, 3, 3)
    scales = weight_scales(weight, 7, None)
    steps = rounded_weight(weight, scales, 7, None) / scales
    assert set(steps.round().unique().tolist()) <= set(range(-7, 8))
    torch.testing.assert_close(steps, steps.round())


def test_gradients_pass_straight_through_inside_the_range() -> None:
    x = torch.tensor([-5.0, -0.2, 0.3, 5.0], requires_grad=True)
    Grid.of_range(-1, 1, 8, symmetric=False).rounded(x).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0, 1, 1, 0]
    bias = torch.tensor([0.26, -0.3], requires_grad=True)
    found = rounded_bias(bias, torch.tensor([0.1, 0.25]))
    torch.testing.assert_close(found, torch.tensor([0.3, -0.25]))
    found.sum().backward()
    assert bias.grad is not None
    assert bias.grad.tolist() == [1, 1]


def test_rounding_happens_once_behind_every_layer_and_its_activation() -> None:
    model = build_model("resnet20", 10).eval()
    calls, outputs = written(model, torch.randn(1, 3, 32, 32))
    points = rounded_results(calls, outputs, outputs_too=False)
    names = [calls[p].name for p in sorted(points - {INPUT})]
    # 1 stem, 9 blocks of two layers and an addition; the second layer of a block has no activation
    assert names.count("relu") == 1 + 9 + 9
    assert names.count("batch_norm") == 9
    assert names.count("adaptive_avg_pool2d") == 1
    assert len(names) == 29
    assert INPUT in points
    with_outputs = rounded_results(calls, outputs, outputs_too=True)
    assert [calls[p].name for p in with_outputs - points] == ["linear"]


class InPlace(nn.Module):
    """What torchvision's blocks do: an addition in place, an activation in place."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        y += x
        return self.relu(y).flatten(1)


def test_operations_in_place_are_followed() -> None:
    model = InPlace().eval()
    calls, outputs = written(model, torch.randn(2, 3, 4, 4))
    assert [call.name for call in calls] == ["conv2d", "add", "relu", "flatten"]
    points = rounded_results(calls, outputs, outputs_too=True)
    assert [calls[p].name for p in sorted(points - {INPUT})] == ["conv2d", "relu"]
    assert rounded_results(calls, outputs, outputs_too=False) == {INPUT, 0}


@pytest.mark.parametrize("name", ["resnet20", "vgg16"])
def test_folding_keeps_answers_and_modules(name: str) -> None:
    model = randomize(build_model(name, 10)).double().eval()
    before, x = copy.deepcopy(model), torch.randn(2, 3, 32, 32).double()
    pairs = folded_norms(model, *written(model, x))
    assert len(pairs) == sum(isinstance(m, nn.BatchNorm2d) for m in model.modules())
    fold_norms(model, pairs)
    torch.testing.assert_close(model(x), before(x), rtol=1e-9, atol=1e-9)
    build_model(name, 10).double().load_state_dict(model.state_dict())
    for pair in pairs:
        norm = model.get_submodule(pair.norm)
        assert isinstance(norm, nn.BatchNorm2d)
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        torch.testing.assert_close(scale, torch.ones_like(scale))


def test_convolutions_with_a_bias_and_shared_ones_are_folded_only_where_that_is_exact() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.twice = nn.Conv2d(3, 3, 1)
            self.norm = nn.BatchNorm2d(3)
            self.once = nn.Conv2d(3, 4, 1)
            self.plain = nn.BatchNorm2d(4, affine=False)

        def forward(self, x: Tensor) -> Tensor:
            return self.plain(self.once(self.norm(self.twice(x)) + self.twice(x)))

    model = Shared().double()
    for _ in range(20):  # so that the norms have something to fold
        model(3 + 2 * torch.randn(8, 3, 4, 4).double())
    model.eval()
    x = torch.randn(2, 3, 4, 4).double()
    expected = model(x)
    pairs = folded_norms(model, *written(model, x))
    assert [(pair.layer, pair.norm) for pair in pairs] == [("once", "plain")]
    fold_norms(model, pairs)
    torch.testing.assert_close(model(x), expected, rtol=1e-9, atol=1e-9)
    assert not model.once.bias.any()


def test_a_convolution_whose_answer_leaves_the_network_keeps_it() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            answer = self.conv(x)
            return self.norm(answer).relu().mean((2, 3)), answer.flatten(1)

    torch.manual_seed(0)
    model, x = randomize(Both()).eval(), torch.randn(4, 3, 8, 8)
    expected = model(x)
    assert folded_norms(model, *written(model, x)) == []
    fake = FakeQuantized(copy.deepcopy(model), Scheme(), lambda: [x], x[:1]).eval()
    for found, wanted in zip(fake(x), expected, strict=True):
        assert (found - wanted).abs().max() < 0.05 * wanted.abs().max()


@pytest.mark.parametrize("affine", [False, True])
def test_a_norm_of_batch_statistics_is_not_folded(affine: bool) -> None:
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(4, affine=affine, track_running_stats=False)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), norm, nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))
    before, x = copy.deepcopy(model.state_dict()), torch.randn(8, 3, 6, 6)
    expected = model.eval()(x)
    assert folded_norms(model, *written(model, x[:1])) == []
    net = FakeQuantized(model, Scheme(), lambda: [x], x[:1]).eval()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    error = (net(x) - expected).detach().abs().max()
    assert 0 < float(error) < 0.05 * float(expected.detach().abs().max())


def fake(scheme: Scheme, model: nn.Module, x: Tensor) -> FakeQuantized:
    return FakeQuantized(model, scheme, lambda: x.split(4), x[:1])


def test_fewer_bits_are_further_from_the_float_network() -> None:
    torch.manual_seed(0)
    model, x = randomize(build_model("resnet20", 10)).eval(), torch.randn(8, 3, 32, 32)
    with torch.no_grad():
        expected = model(x)
        errors = [
            float((fake(scheme, copy.deepcopy(model), x).eval()(x) - expected).abs().mean())
            for scheme in (
                Scheme(activation_bits=16),
                Scheme(),
                Scheme(weight_limit=7),
                Scheme(weight_limit=1, activation_bits=None),
            )
        ]
    assert errors[1] < errors[2] < errors[3]
    assert 0 < errors[0] < 1.1 * errors[1]  # the weights' rounding is most of both
    assert errors[1] < 0.1 * float(expected.std())


def test_answers_are_on_the_grid_and_need_a_mode_first() -> None:
    x = torch.randn(8, 3, 6, 6)
    net = fake(Scheme(quantized_outputs=True), randomize(TinyNet()), x)
    with pytest.raises(RuntimeError, match=r"train\(\) or eval\(\)"):
        net(x)
    with torch.no_grad():
        answers = net.eval()(x)
    assert len(answers.unique()) <= 256
    weights_only = fake(Scheme(activation_bits=None), randomize(TinyNet()), x)
    assert weights_only(x).shape == (8, 3)


class Tokens(nn.Module):
    """Keeps what an inner layer returns first; the linear layer behind reads its mean."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.conv, self.inner, self.head = nn.Conv2d(3, 4, 3), inner, nn.Linear(4, 3)
        self.seen = torch.empty(0)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.conv(x).flatten(2).transpose(1, 2)  # (N, 16, 4)
        several = (tokens, tokens) if isinstance(self.inner, nn.MultiheadAttention) else ()
        self.seen, _ = self.inner(tokens, *several)
        return self.head(self.seen.mean(1))


@pytest.mark.parametrize("left", [(), ("conv",), ("head",), ("conv", "head")])
@pytest.mark.parametrize("recurrent", [False, True])
def test_the_first_of_several_results_is_on_a_grid(left: tuple[str, ...], recurrent: bool) -> None:
    """But what a recurrent layer hands on, which onnxruntime's quantizer leaves in float."""
    torch.manual_seed(0)
    x = torch.randn(8, 3, 6, 6)
    attention = nn.MultiheadAttention(4, 2, batch_first=True)
    model = Tokens(nn.LSTM(4, 4, batch_first=True) if recurrent else attention)
    net = fake(Scheme(), model, x).eval()
    net.float_layers = left
    with torch.no_grad():
        net(x)
    assert (len(model.seen.unique()) > 256) == recurrent


def test_ranges_follow_the_weights_and_norms_stay_as_they_are() -> None:
    reads = 0
    x = torch.randn(8, 3, 6, 6)

    def calibration() -> tuple[Tensor, ...]:
        nonlocal reads
        reads += 1
        return x.split(4)

    model = randomize(TinyNet(dropout=0.5))
    net = FakeQuantized(model, Scheme(), calibration, x[:1])
    first = net.eval()(x)
    net.train()
    assert reads == 1
    assert net.training
    assert not model.bn1.training
    torch.testing.assert_close(net(x), first)  # no dropout, no batch statistics
    with torch.no_grad():
        model.head.weight.mul_(2)
    net.eval()
    assert reads == 2
    assert not torch.equal(net(x), first)


def test_training_recovers_what_ternary_weights_lose() -> None:
    torch.manual_seed(0)
    images, compute = ToyImages(), Compute(torch.device("cpu"), mixed_precision=False)
    images.x += 1.5 * torch.randn(images.x.shape)  # or else ternary weights were enough
    model = TinyNet(width=8)
    quiet = {"checkpoint": Checkpoint(None), "observer": Notes()}
    fit(model, images, Recipe(30, 0.05), compute, stage="float", **quiet)
    net = FakeQuantized(
        model, Scheme(weight_limit=1), lambda: [x for x, _ in images.validation()], images.x[:1]
    )

    def loss(of: nn.Module) -> float:
        with torch.no_grad():
            return float(F.cross_entropy(of.eval()(images.x), images.labels))

    exact, before = loss(copy.deepcopy(model)), loss(net)
    fit(net, images, Recipe(20, 0.02), compute, stage="qat", **quiet)
    assert before > exact + 0.01
    assert loss(net) - exact < 0.5 * (before - exact)
