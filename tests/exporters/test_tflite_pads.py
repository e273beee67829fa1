"""Borders of minus infinity around max pools get a value that has an 8-bit form."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from exporting import exported
from torch import Tensor, nn
from torch.nn import functional as F

from exporters.checks import tflite_runner


def test_a_padded_max_pool_of_negative_values(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.MaxPool2d(3, 2, 1), nn.Flatten(), nn.Linear(64, 4)
    ).eval()
    network[0].bias.data.fill_(-3.0)
    images = np.random.default_rng(0).standard_normal((16, 3, 8, 8)).astype(np.float32)
    (file,) = exported(network, tmp_path, images, "int8", formats=("tflite",))
    assert file.float_layers == ()
    assert file.agreement_validation is not None
    assert file.agreement_validation >= 0.9


class TwoPools(nn.Module):
    """One pool sees 0 and more, the other one -1 and less: what loses in one wins in the other."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.conv(x))
        pools = F.max_pool2d(y, 3, 2, 1), F.max_pool2d(-y - 1, 3, 2, 1)
        return torch.cat(pools, dim=1).flatten(1)


def test_each_of_two_padded_max_pools_has_a_border_of_its_own(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = TwoPools().eval()
    images = np.random.default_rng(0).standard_normal((16, 3, 8, 8)).astype(np.float32)
    (file,) = exported(network, tmp_path, images, "int8", formats=("tflite",))
    with torch.no_grad():
        expected = network(torch.from_numpy(images)).numpy()
    (found,) = tflite_runner(tmp_path / file.path, [file.output.name])(images)
    assert file.output.scale is not None
    assert np.abs(found - expected).max() <= 2 * file.output.scale
    assert "float32" not in file.weight_bytes  # no border is left over
