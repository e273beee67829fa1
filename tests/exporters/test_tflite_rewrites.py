"""Operations said in other words: the values that torch has, and files without what was bad."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from exporting import exported
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from compressor.models import build_model
from exporters.inspect_tflite import inspect_tflite
from exporters.prepare import deployable
from exporters.tflite import export_float_tflite
from exporters.tflite_rewrites import rewritten_for_tflite

amounts = st.integers(0, 5)
sizes = st.integers(1, 3)


class Padded(nn.Module):
    """Every kind of pad: of channels, of pixels, of both, with another value, reflected."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.after = nn.Conv2d(3, 4, 3), nn.Conv2d(20, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.before(x)
        wider = F.pad(x, (0, 0, 0, 0, 1, 0))
        both = F.pad(x, (1, 1, 1, 1, 0, 1))[:, :, 1:-1, 1:-1]
        ones = F.pad(x, (0, 0, 0, 0, 0, 1), value=1.0)
        pixels = F.pad(x, (1, 1, 0, 0), mode="reflect")[:, :, :, 1:-1]
        narrower = F.pad(x, pad=[0, 0, 0, 0, -1, -1])
        return self.after(torch.cat([wider, both, ones, pixels[:, 1:], narrower], 1)).mean((2, 3))


@given(front=amounts, back=amounts)
def test_a_pad_of_channels_keeps_its_values(front: int, back: int) -> None:
    x = torch.randn(2, 3, 4, 5)
    expected = F.pad(x, (0, 0, 0, 0, front, back))
    with rewritten_for_tflite():
        assert torch.equal(F.pad(x, (0, 0, 0, 0, front, back)), expected)


def test_other_pads_are_left_alone() -> None:
    network, x = Padded().eval(), torch.randn(2, 3, 8, 8)
    expected = network(x)
    with rewritten_for_tflite():
        torch.testing.assert_close(network(x), expected)


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 3), st.integers(1, 3))
def test_strides_over_pixels_keep_their_values(
    height: int, width: int, down: int, right: int
) -> None:
    x = torch.randn(2, 3, height, width)
    expected = x[:, :, ::down, ::right]
    with rewritten_for_tflite():
        assert torch.equal(x[:, :, ::down, ::right], expected)
        assert torch.equal(x[..., 0::down, ::right], expected)
        assert torch.equal(x[:, 1:, ::down, ::right], expected[:, 1:])
        assert torch.equal(x[:, :, ::down, 1::right], x[:, :, ::down][:, :, :, 1::right])
        assert torch.equal(x.long()[:, :, ::down, ::right], expected.long())
        assert torch.equal(x[0][:, ::down, ::right], expected[0])
        assert torch.equal(x[1], x.unbind()[1])


class Shortcut(nn.Module):
    """An option-A shortcut as it is usually written."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 8, 3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2))
        return (self.conv(x) + shortcut).mean((2, 3))


def test_a_shortcut_needs_no_slices(tmp_path: Path) -> None:
    path = tmp_path / "shortcut.tflite"
    export_float_tflite(Shortcut().eval(), path, input_shape=(4, 9, 9))
    assert not {"STRIDED_SLICE", "SLICE", "GATHER"} & set(inspect_tflite(path).op_counts)


@given(height=st.integers(1, 12), width=st.integers(1, 12), rows=amounts, columns=amounts)
def test_pooling_keeps_its_values(height: int, width: int, rows: int, columns: int) -> None:
    x, sizes = torch.randn(2, 3, height, width), (rows or None, columns or None)
    expected, seven = F.adaptive_avg_pool2d(x, sizes), F.adaptive_avg_pool2d(x, 7)
    with rewritten_for_tflite():
        torch.testing.assert_close(F.adaptive_avg_pool2d(x, sizes), expected)
        torch.testing.assert_close(nn.AdaptiveAvgPool2d(7)(x), seven)


@given(sizes, sizes, sizes, sizes, st.integers(0, 1), st.booleans())
def test_windows_with_gaps_keep_their_values(
    rows: int, columns: int, gap: int, stride: int, pad: int, ceil: bool
) -> None:
    x = torch.randn(2, 3, 9, 8)
    kernel = rows + pad, columns + pad  # at least twice the pad
    asked = (x, kernel, stride, pad, (gap, 1), ceil)
    expected = F.max_pool2d(*asked), F.max_pool2d(x, 2, dilation=2)
    with rewritten_for_tflite():
        assert torch.equal(F.max_pool2d(*asked), expected[0])
        assert torch.equal(nn.MaxPool2d(2, dilation=2)(x), expected[1])


@given(sizes, sizes, sizes, st.integers(0, 4), st.integers(0, 2), st.sampled_from([1, 2]))
def test_transposed_convolutions_keep_their_values(
    rows: int, columns: int, stride: int, pad: int, more: int, groups: int
) -> None:
    up = nn.ConvTranspose2d(
        2, 4, (rows, columns), stride, (pad, 0), (min(more, stride - 1), 0), groups
    )
    x = torch.randn(2, 2, 9, 8)
    expected = up(x)
    with rewritten_for_tflite():
        torch.testing.assert_close(up(x), expected)


@given(st.integers(1, 3), st.booleans(), st.sampled_from([None, 0.3]))
def test_attention_keeps_its_values(heads: int, shared: bool, scale: float | None) -> None:
    query = torch.randn(2, heads, 5, 4)
    key, value = (torch.randn(2, 1 if shared else heads, 6, 4) for _ in range(2))
    mask = torch.rand(5, 6) > 0.3
    mask[:, 0] = True
    plain = F.scaled_dot_product_attention(query, key, value, scale=scale)
    masked = F.scaled_dot_product_attention(query, key, value, mask, scale=scale)
    with rewritten_for_tflite():
        found = F.scaled_dot_product_attention(query, key, value, scale=scale)
        torch.testing.assert_close(found, plain)
        found = F.scaled_dot_product_attention(query, key, value, mask, scale=scale)
        torch.testing.assert_close(found, masked)


def test_expanding_keeps_its_values() -> None:
    image, other = torch.randn(2, 3, 4, 1), torch.randn(2, 3, 4, 5)
    with rewritten_for_tflite():
        assert torch.equal(image.expand_as(other), image.expand(2, 3, 4, 5))
        assert torch.equal(image[0].expand_as(other[0]), image[0].expand(3, 4, 5))


def test_uneven_pooling_can_be_quantized(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(7),
        nn.Flatten(),
        nn.Linear(392, 4),
    )
    images = np.random.default_rng(0).standard_normal((16, 3, 8, 8)).astype(np.float32)
    files = exported(network, tmp_path, images, "int8", formats=("tflite",))
    # Its answers have been compared with torch's.
    assert [file.precision for file in files] == ["int8"]


@pytest.fixture(scope="module")
def resnet20(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, Path]:
    """A ResNet with option-A shortcuts and its float file."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("pad") / "resnet20.tflite"
    network = deployable(build_model("resnet20", 10), (3, 32, 32), lambda _: None)
    export_float_tflite(network, path, input_shape=(3, 32, 32))
    return network, path


def test_a_resnet_needs_no_transposes(resnet20: tuple[nn.Module, Path]) -> None:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(resnet20[1]))
    operators = Counter(entry["op_name"] for entry in interpreter._get_ops_details())
    assert operators["CONV_2D"] == 19 + 2  # its own and the two shortcuts
    assert "TRANSPOSE" not in operators


def test_the_file_answers_as_torch(resnet20: tuple[nn.Module, Path]) -> None:
    from ai_edge_litert.interpreter import Interpreter

    network, path = resnet20
    x = torch.randn(1, 3, 32, 32)
    interpreter = Interpreter(str(path))
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x.permute(0, 2, 3, 1))
    interpreter.invoke()
    answer = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    np.testing.assert_allclose(answer, network(x).numpy(), rtol=1e-4, atol=1e-5)
