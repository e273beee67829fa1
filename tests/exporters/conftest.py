"""A small residual net trained on made-up images, and its files for two boards."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from small_net import INPUT_SHAPE, Folder, SmallNet, made_up_images, normalised, stream
from torch import nn

from boards import load_board
from exporters import Calibration, export_files


@pytest.fixture(scope="session")
def small_net() -> nn.Module:
    """SmallNet after a few steps of training, in eval mode."""
    torch.manual_seed(0)
    model = SmallNet()
    images, labels = made_up_images(256, seed=1)
    data, wanted = torch.from_numpy(normalised(images)), torch.from_numpy(labels)
    optimizer = torch.optim.Adam(list(model.parameters()), 5e-3)
    for _ in range(5):
        for batch in torch.randperm(len(data)).split(32):
            optimizer.zero_grad()
            F.cross_entropy(model(data[batch]), wanted[batch]).backward()
            optimizer.step()
    return model.eval()


@pytest.fixture(scope="session")
def calibration() -> Calibration:
    images = normalised(made_up_images(48, seed=2)[0])
    return Calibration(lambda: stream(images, 16))


@pytest.fixture(scope="session")
def validation_images() -> np.ndarray:
    """float32 [N, 3, S, S]."""
    return normalised(made_up_images(120, seed=3)[0])


def _exported(
    board: str,
    precisions: tuple[str, ...],
    path: Path,
    model: nn.Module,
    calibration: Calibration,
    images: np.ndarray,
) -> Folder:
    notices: list[str] = []
    descriptor = load_board(board)
    files = export_files(
        model,
        stage="slim",
        folder=path,
        input_shape=INPUT_SHAPE,
        calibration=calibration,
        validation=lambda: stream(images, 50),
        board=descriptor,
        formats=descriptor.formats,
        precisions=precisions,
        progress=notices.append,
    )
    return Folder(path, files, model, tuple(notices))


@pytest.fixture(scope="session")
def pc_folder(tmp_path_factory, small_net, calibration, validation_images) -> Folder:
    """x86-64: float32 and INT8 in both formats."""
    path = tmp_path_factory.mktemp("pc")
    both = ("float32", "int8")
    return _exported("x86-64", both, path, small_net, calibration, validation_images)


@pytest.fixture(scope="session")
def jetson_folder(tmp_path_factory, small_net, calibration, validation_images) -> Folder:
    """jetson: INT8 alone."""
    path = tmp_path_factory.mktemp("jetson")
    return _exported("jetson", ("int8",), path, small_net, calibration, validation_images)


@pytest.fixture(scope="session")
def half_folder(tmp_path_factory, small_net, calibration, validation_images) -> Folder:
    """jetson-nano, which has no INT8: float16 alone, in an old opset."""
    path = tmp_path_factory.mktemp("nano")
    return _exported("jetson-nano", ("float16",), path, small_net, calibration, validation_images)
