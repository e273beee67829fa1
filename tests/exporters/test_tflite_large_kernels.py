"""Convolutions of more than 32 MiB become integers as smaller ones do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from exporting import exported
from torch import nn

from exporters.inspect_tflite import TfliteGraph

INPUTS, WIDTH = 32, 30000  # 8.64 million weights in 3x3 kernels: 33 MiB


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, INPUTS, 1), nn.ReLU(),
        nn.Conv2d(INPUTS, WIDTH, 3), nn.ReLU(), nn.Flatten(), nn.Linear(WIDTH, 4),
    ).eval()  # fmt: skip


@pytest.mark.parametrize("precision", ["int8", "int8-weights"])
def test_each_weight_is_rounded_by_the_scale_of_its_channel(
    tmp_path: Path, network: nn.Sequential, precision: str
) -> None:
    images = np.random.default_rng(0).standard_normal((8, 3, 3, 3)).astype(np.float32)
    (file,) = exported(network, tmp_path, images, precision, formats=("tflite",))
    graph = TfliteGraph(tmp_path / file.path)
    kernels = [i for i, t in enumerate(graph.tensors) if list(t.shape) == [WIDTH, 3, 3, INPUTS]]
    (kernel,) = [graph.tensors[i] for i in kernels if graph.is_constant(i)]
    stored = np.frombuffer(bytes(graph.model.buffers[kernel.buffer].data), np.int8)
    weights = network[2].weight.detach().permute(0, 2, 3, 1).reshape(WIDTH, -1).numpy()
    scales = np.abs(weights).max(axis=1, keepdims=True) / 127
    np.testing.assert_allclose(np.ravel(kernel.quantization.scale), scales[:, 0], rtol=1e-6)
    expected = np.round(weights / scales)
    assert np.abs(stored.reshape(WIDTH, -1) - expected).max() <= 1
    assert (stored.reshape(WIDTH, -1) == expected).mean() > 0.9999
    assert file.agreement_validation == 1.0
