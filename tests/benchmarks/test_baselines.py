"""Baselines whose weights were lost, or which come with the repository."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.pruning import baselines, compare, results
from benchmarks.pruning import setting as settings
from benchmarks.pruning.setting import NETWORKS, Network, Setting, network_of
from compressor.errors import InputError
from compressor.saved import load_model

NETWORK = "resnet20"


@pytest.fixture
def setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Setting:
    """Grey images whose brightness is their class, and one epoch for a network from scratch."""
    for split, count in (("train", 4), ("test", 2)):
        for label in range(10):
            folder = tmp_path / "data" / split / f"class{label}"
            folder.mkdir(parents=True)
            for index in range(count):
                pixels = np.full((32, 32, 3), 20 + 22 * label + index, np.uint8)
                Image.fromarray(pixels).save(folder / f"{index}.png")
    plan = Network(None, 1, 0.1, architecture=NETWORK)
    monkeypatch.setitem(NETWORKS, NETWORK, plan)  # type: ignore[index]
    monkeypatch.setattr(settings, "SHIPPED", tmp_path / "shipped")
    return Setting(tmp_path / "data", None, tmp_path / "work", tmp_path / "results", "cpu")


def make(setting: Setting, patch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)  # a network from scratch begins with what is drawn
    words = ["--data", setting.data, "--work", setting.work, "--results", setting.results]
    patch.setattr(sys, "argv", ["baselines", NETWORK, *map(str, words)])
    baselines.main()


def test_a_lost_baseline_is_made_again_and_its_row_stays(
    setting: Setting, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make(setting, monkeypatch)
    folder, file = setting.work / "baselines" / NETWORK, setting.results / "baselines.jsonl"
    assert setting.baseline(NETWORK) == folder
    first, row = load_model(folder).state_dict(), file.read_text()
    shutil.rmtree(setting.work)
    make(setting, monkeypatch)
    assert file.read_text() == row
    again = load_model(folder).state_dict()
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    capsys.readouterr()
    make(setting, monkeypatch)
    assert "finished before" in capsys.readouterr().out


def test_another_network_does_not_take_a_lost_ones_place(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = np.zeros(20, bool)
    row = {"network": NETWORK, "test_top1": 0.0, "test_right": results.pack(~right)}
    setting.results.mkdir()
    (setting.results / "baselines.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(InputError, match="another network than that of baselines.jsonl"):
        make(setting, monkeypatch)
    assert not (setting.work / "baselines" / NETWORK).exists()
    assert len(list(results.rows(setting.results / "baselines.jsonl"))) == 1


def test_ones_own_baseline_goes_before_a_shipped_one(setting: Setting, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="run benchmarks.pruning.baselines first"):
        setting.baseline(NETWORK)
    shipped, own = tmp_path / "shipped" / NETWORK, setting.work / "baselines" / NETWORK
    for folder in (shipped, own):
        folder.mkdir(parents=True)
        (folder / "model.json").touch()
    assert setting.baseline(NETWORK) == own
    shutil.rmtree(own)
    assert setting.baseline(NETWORK) == shipped


def test_a_continued_baseline_keeps_its_last_epoch_and_its_own_seconds(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(setting, monkeypatch)
    name = f"{NETWORK}-continued-macs1-s0-e0of1-lr1"
    seconds = setting.work / "runs" / name / "seconds.json"
    seconds.parent.mkdir(parents=True)  # of a run that was screened before
    seconds.write_text('{"seconds": {"finetune": 1e6}, "cpu_seconds": {"finetune": 1e6}}')
    words = ["--data", setting.data, "--work", setting.work, "--results", setting.results]
    run = f"--network {NETWORK} --methods continued --shares 1 --epochs 1 --learning-rate 1"
    monkeypatch.setattr(sys, "argv", ["compare", *run.split(), *map(str, words)])
    compare.main()
    (row,) = results.rows(setting.results / "runs.jsonl")
    assert 0 < row["seconds"]["finetune"] < 1e6
    assert not seconds.exists()
    # At this rate an epoch does no good on the validation images; still it is not taken back.
    before = load_model(setting.baseline(NETWORK)).state_dict()
    after = load_model(setting.work / "networks" / name).state_dict()
    assert not torch.equal(before["conv1.weight"], after["conv1.weight"])


@pytest.mark.parametrize(
    ("name", "network"),
    [
        ("resnet20", "resnet20"),
        ("resnet20-decore-macs0.5-s0", "resnet20"),
        ("resnet20-unseen-decore-macs0.5-s0", "resnet20-unseen"),
        ("resnet200", "vgg16"),
        ("mine", "vgg16"),
    ],
)
def test_a_folders_name_tells_its_network(name: str, network: str) -> None:
    assert network_of(name, "vgg16") == network


@pytest.mark.parametrize("folder", sorted(settings.SHIPPED.glob("*")), ids=lambda path: path.name)
def test_shipped_networks_load(folder: Path) -> None:
    if folder.is_dir():
        assert load_model(folder)(torch.zeros(1, 3, 32, 32)).shape == (1, 10)
