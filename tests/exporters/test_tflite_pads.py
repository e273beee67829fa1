"""Borders of minus infinity around max pools get a value that has an 8-bit form."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

from boards import load_board
from exporters import Calibration, export_files


def test_a_padded_max_pool_of_negative_values(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.MaxPool2d(3, 2, 1), nn.Flatten(), nn.Linear(64, 4)
    ).eval()
    network[0].bias.data.fill_(-3.0)
    images = np.random.default_rng(0).standard_normal((16, 3, 8, 8)).astype(np.float32)
    (file,) = export_files(
        network,
        stage="slim",
        folder=tmp_path,
        input_shape=(3, 8, 8),
        calibration=Calibration(lambda: [images]),
        board=load_board("x86-64"),
        validation=lambda: iter([images]),
        formats=("tflite",),
        precisions=("int8",),
        progress=lambda _: None,
    )
    assert file.float_layers == ()
    assert file.agreement_validation is not None
    assert file.agreement_validation >= 0.9
