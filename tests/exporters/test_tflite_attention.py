"""Pieces of attention networks whose INT8 files need help: they export and answer as torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from exporting import exported
from torch import Tensor, nn
from torch.nn import functional as F

from exporters.float_operators import float_operators
from exporters.inspect_tflite import TfliteGraph
from exporters.profiles.tflite_rules import scale_of
from runtime_bench.manifest import ModelFile
from runtime_bench.runtimes import load_runner

SIZE, WIDTH = 8, 8


class Piece(nn.Module):
    """A convolution, a piece of attention on its output [N, C, H, W], a linear head."""

    def __init__(self, piece: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 3 * WIDTH, 3, 2, 1)
        self.linear = nn.Linear(3 * WIDTH, WIDTH)
        self.scale = nn.Parameter(torch.rand(WIDTH) + 0.5)
        self.head = nn.Linear(WIDTH, 4)
        self.piece = piece

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.piece(self, F.relu(self.stem(x))).mean((2, 3)))


def scaled_linear(network: nn.Module, x: Tensor) -> Tensor:
    """A layer scale behind a linear layer over channels that come last (ConvNeXt, EdgeNeXt)."""
    return (network.scale * network.linear(x.permute(0, 2, 3, 1))).permute(0, 3, 1, 2)


def product_of_activations(network: nn.Module, x: Tensor) -> Tensor:
    """Queries times keys, that times values (EfficientViT of MSRA)."""
    query, key, value = (part.flatten(2) for part in x.chunk(3, 1))
    weights = (query.transpose(1, 2) @ key) * 0.1
    return (value @ weights.transpose(1, 2)).unflatten(2, x.shape[-2:])


def linear_attention(network: nn.Module, x: Tensor) -> Tensor:
    """A quotient whose divisor is nearly zero in places (EfficientViT of MIT)."""
    share, sums, _ = x.chunk(3, 1)
    sums = F.relu(sums - 0.3)
    return sums * share.sigmoid() / (sums + 1e-4)


def expanded_context(network: nn.Module, x: Tensor) -> Tensor:
    """A context of one pixel that is expanded to all of them (MobileViT v2)."""
    key, value, _ = x.chunk(3, 1)
    return value * key.sum(-1, keepdim=True).expand_as(value)


def class_token(network: nn.Module, x: Tensor) -> Tensor:
    """A constant in front of the pixels, as vision transformers have one."""
    tokens = network.linear(x.flatten(2).transpose(1, 2))
    token = network.scale.expand(x.shape[0], 1, -1)
    return torch.cat([token, tokens], 1).transpose(1, 2)[..., None]


def shared_keys(network: nn.Module, x: Tensor) -> Tensor:
    """Two heads of queries on one head of keys and values (MobileNetV4)."""
    queries = x[:, :WIDTH].unflatten(1, (2, -1)).flatten(3).transpose(2, 3)
    key, value = (part.flatten(2).transpose(1, 2)[:, None] for part in x[:, WIDTH:].chunk(4, 1)[:2])
    found = F.scaled_dot_product_attention(30 * queries, key, value)
    return found.transpose(2, 3).reshape(x.shape[0], WIDTH, *x.shape[2:])


PIECES = (
    scaled_linear,
    product_of_activations,
    linear_attention,
    expanded_context,
    class_token,
    shared_keys,
)


@pytest.fixture(scope="module", params=PIECES, ids=lambda piece: piece.__name__)
def network(request: pytest.FixtureRequest) -> Piece:
    return Piece(request.param).eval()


@pytest.fixture(scope="module")
def files(network: Piece, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The INT8 files by their format, after each answered as torch does."""
    folder = tmp_path_factory.mktemp("piece")
    images = np.random.default_rng(0).standard_normal((16, 3, SIZE, SIZE)).astype(np.float32)
    exports = exported(network, folder, images, "int8")
    with torch.no_grad():
        expected = network(torch.from_numpy(images)).numpy()
    for file in exports:
        manifest = ModelFile.from_json(file.to_json(), "test")
        runner = load_runner(folder / file.path, manifest, threads=1)
        found = np.concatenate([runner.run(image[None]) for image in images])
        assert np.abs(found - expected).max() < 0.05 * np.ptp(expected)
    return {file.format: folder / file.path for file in exports}


def test_tflite_computes_quotients_alone_in_float(network: Piece, files: dict[str, Path]) -> None:
    quotient = {"DIV", "ADD"} if network.piece is linear_attention else set()
    assert set(float_operators(files["tflite"])) == quotient


def test_onnx_adds_in_float_what_keeps_a_divisor_from_zero(
    network: Piece, files: dict[str, Path]
) -> None:
    in_float = float_operators(files["onnx"])
    assert ("Add" in in_float) == (network.piece is linear_attention)


def test_scales_lie_along_an_axis_that_has_them(files: dict[str, Path]) -> None:
    graph = TfliteGraph(files["tflite"])
    for index, tensor in enumerate(graph.tensors):
        found = scale_of(graph, index)
        if found is not None and len(found[0]) > 1:
            assert tensor.shape[found[2]] == len(found[0])
