"""A small residual net trained on made-up images, and its files for two boards."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from boards import load_board
from exporters import Calibration, Exported, export_files

SIZE = 16
CLASSES = ("stripes", "columns", "checks", "plain")
INPUT_SHAPE = (3, SIZE, SIZE)
PREPROCESSING = {
    "resize": SIZE,
    "mean": [0.5, 0.5, 0.5],
    "std": [0.25, 0.25, 0.25],
    "scale": 1 / 255,
    "channel_order": "RGB",
}


class PaddedShortcut(nn.Module):
    """Option A: every second pixel, then zero channels on both sides."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 4, 4))  # [N, 8, H, W] -> [N, 16, H/2, W/2]


class Constant(nn.Module):
    """What is left of a branch without channels: one value per channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.linspace(-0.3, 0.3, channels).view(1, channels, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.value


class Squeeze(nn.Module):
    """Squeeze and excitation."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.down = nn.Conv2d(channels, 4, 1)
        self.up = nn.Conv2d(4, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gate = self.up(F.relu(self.down(F.adaptive_avg_pool2d(x, 1))))
        return x * torch.sigmoid(gate)


class Block(nn.Module):
    def __init__(self, entry: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(entry, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut = nn.Identity() if stride == 1 else PaddedShortcut()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class SmallNet(nn.Module):
    """What slimmed nets bring: a padded pool, padded channels, a constant, a gate, a mean."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.block1 = Block(8, 8, 1)
        self.block2 = Block(8, 16, 2)
        self.empty = Constant(16)
        self.gate = Squeeze(16)
        self.block3 = Block(16, 16, 1)
        self.linear = nn.Linear(16, len(CLASSES))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 1, 1)
        x = self.block2(self.block1(x))
        x = F.relu(x + self.empty(x))
        x = self.block3(self.gate(x))
        return self.linear(x.mean((2, 3)))


def made_up_images(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """uint8 images [N, S, S, 3] with a pattern per class, and labels [N]."""
    rng = np.random.default_rng(seed)
    rows, columns = np.indices((SIZE, SIZE))
    patterns = np.stack([rows // 2 % 2, columns // 2 % 2, (rows // 2 + columns // 2) % 2, rows * 0])
    labels = np.arange(count) % len(CLASSES)
    contrast = rng.uniform(40, 110, (count, 1, 1, 1))
    colour = rng.uniform(60, 130, (count, 1, 1, 3))
    noise = rng.normal(0, 25, (count, SIZE, SIZE, 3))
    images = colour + contrast * patterns[labels][..., None] + noise
    return images.clip(0, 255).astype(np.uint8), labels


def normalised(images: np.ndarray) -> np.ndarray:
    """uint8 [N, H, W, 3] -> float32 [N, 3, H, W]."""
    values = (images / 255 - 0.5) / 0.25
    return np.ascontiguousarray(values.transpose(0, 3, 1, 2), np.float32)


def stream(images: np.ndarray, size: int) -> Iterator[np.ndarray]:
    for start in range(0, len(images), size):
        yield images[start : start + size]


@dataclass(frozen=True)
class Folder:
    """A folder of exported files with what they were made from."""

    path: Path
    files: tuple[Exported, ...]
    model: nn.Module
    notices: tuple[str, ...]

    def file(self, name: str) -> Exported:
        return next(file for file in self.files if file.name == name)


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
