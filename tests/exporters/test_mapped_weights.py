"""Large weights lie in files while a network is exported: the same numbers, less memory."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from exporting import exported
from torch import nn

from exporters import mapped_weights
from exporters.mapped_weights import map_weights

LARGE = 256


@pytest.fixture
def net(monkeypatch: pytest.MonkeyPatch) -> nn.Sequential:
    """Convolutions and a linear layer, [N, 3, 8, 8] to [N, 4]; all but the last are large."""
    monkeypatch.setattr(mapped_weights, "LARGE_BYTES", LARGE)
    torch.manual_seed(0)
    body = (nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU())
    return nn.Sequential(*body, nn.Flatten(), nn.Linear(256, 8), nn.ReLU(), nn.Linear(8, 4)).eval()


def mapped(net: nn.Module) -> list[str]:
    return [n for n, p in net.named_parameters() if p.untyped_storage().filename is not None]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_numbers_layouts_and_shared_weights_stay(
    net: nn.Sequential, layout: torch.memory_format, tmp_path: Path
) -> None:
    net.to(memory_format=layout)
    net.add_module("again", net[3])
    before = deepcopy(net)
    images = torch.randn(4, 3, 8, 8)
    with torch.no_grad():
        expected = net[:9](images)
        map_weights(net, tmp_path)
        assert torch.equal(net[:9](images), expected)
    assert mapped(net) == ["0.weight", "3.weight", "6.weight"]
    assert net.get_parameter("again.weight") is net.get_parameter("3.weight")
    for now, then in zip(net.parameters(), before.parameters(), strict=True):
        assert torch.equal(now, then) and now.stride() == then.stride()
    assert list(tmp_path.iterdir()) == []


def test_a_view_of_a_larger_tensor_keeps_its_place_there(
    net: nn.Sequential, tmp_path: Path
) -> None:
    whole = torch.arange(40 * 256.0).reshape(40, 256)
    linear = net.get_parameter("6.weight")
    linear.data = whole[8:16]
    map_weights(net, tmp_path)
    assert torch.equal(linear, whole[8:16])


def test_once_is_enough(net: nn.Sequential, tmp_path: Path) -> None:
    map_weights(net, tmp_path)
    places = [parameter.data_ptr() for parameter in net.parameters()]
    map_weights(net, tmp_path)
    assert [parameter.data_ptr() for parameter in net.parameters()] == places


def test_a_copy_is_trained_in_memory_and_the_original_stays(
    net: nn.Sequential, tmp_path: Path
) -> None:
    map_weights(net, tmp_path)
    weight, copy = net.get_parameter("0.weight"), deepcopy(net)
    before = weight.detach().clone()
    assert mapped(copy) == []
    with torch.no_grad():
        copy.get_parameter("0.weight").zero_()
    assert torch.equal(weight, before)


def test_a_full_disk_leaves_the_weights_where_they_are(
    net: nn.Sequential, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    before = deepcopy(net)
    with pytest.raises(OSError, match="No space left"):
        map_weights(net, tmp_path)
    assert mapped(net) == [] and list(tmp_path.iterdir()) == []
    assert all(map(torch.equal, net.parameters(), before.parameters()))


MEASURE = """
import sys
from pathlib import Path
from torch import nn
from exporters.mapped_weights import map_weights
from runtime_bench.memory import parse_status

def anonymous_bytes():
    return parse_status(Path("/proc/self/status").read_text(errors="replace"))["RssAnon"]

net = nn.Linear(4096, 4096)  # 64 MiB
before = anonymous_bytes()
map_weights(net, Path(sys.argv[1]))
print(before - anonymous_bytes())
"""


def test_memory_is_given_back(tmp_path: Path) -> None:
    # In a process of its own: one that has freed much before keeps the room for what comes next.
    command = [sys.executable, "-c", MEASURE, str(tmp_path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert int(done.stdout) > 60 * 2**20


def test_files_are_the_same(
    net: nn.Sequential, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = np.random.default_rng(0).standard_normal((8, 3, 8, 8)).astype(np.float32)

    def files(folder: Path) -> dict[str, str]:
        done = exported(deepcopy(net), folder, batch, "float32", "int8")
        return {file.name: file.sha256 for file in done}

    on_disk = files(tmp_path / "on disk")
    monkeypatch.setattr(mapped_weights, "LARGE_BYTES", 2**31)
    assert files(tmp_path / "in memory") == on_disk
