"""The quantization benchmark on a few digits and a tiny network."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models import MobileNetV2

from benchmarks.pruning import compare
from benchmarks.pruning.setting import NETWORKS, Network
from benchmarks.quantization import bits, joint, mobilenet, modes, times
from benchmarks.quantization.mobilenet import mobilenet_v2
from benchmarks.quantization.peers import NAMES, Peer, described, peers
from benchmarks.quantization.setting import open_task, saved_options
from compressor.saved import save_model


class Tiny(nn.Module):
    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, 2, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.deep = nn.Conv2d(8, 16, 3)
        self.head = nn.Linear(16, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.deep(torch.relu(self.norm(self.conv(x)))))
        return self.head(x.mean((2, 3)))  # [N, 3, H, W] -> [N, K]


def tiny(num_classes: int = 10) -> nn.Module:
    return Tiny(num_classes)


ARCHITECTURE = f"{__name__}:tiny"


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    folder = tmp_path / "baselines" / "tiny"
    save_model(tiny(), ARCHITECTURE, 10, folder)
    return folder


def call(
    monkeypatch: pytest.MonkeyPatch, module: Any, words: str, work: Path
) -> list[dict[str, Any]]:
    """Run a command; return the rows of its file."""
    options = f"--data digits --images 48 --work {work} --results {work / 'results'}"
    monkeypatch.setattr(sys, "argv", f"command {words} {options}".split())
    module.main()
    lines = (work / "results" / module.FILE).read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_files_are_measured_beside_their_float_file_and_once(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(modes, "FILE_PRECISIONS", ("float32", "int8"))
    words = f"{saved} --formats onnx --runs 3"
    rows = call(monkeypatch, modes, words, tmp_path)
    assert [row["mode"] for row in rows] == ["float32", "int8", "onnxruntime-default"]
    exact, ours, other = rows
    assert exact["size_bytes"] == exact["float_size_bytes"] == ours["float_size_bytes"]
    assert exact["top1"] == exact["torch_top1"] and exact["agreement"] == 1
    assert exact["latency_p50_ms"] == exact["float_latency_p50_ms"] == ours["float_latency_p50_ms"]
    assert ours["agreement"] > 0.8 and ours["tool"] is None
    assert other["tool"].startswith("onnxruntime ")
    assert all(row["test_images"] == 48 and row["peak_rss_bytes"] > 2**20 for row in rows)
    files = tmp_path / "quantization" / "tiny-onnx-32px-s0-48images"
    stored = (files / "onnxruntime-default" / "onnxruntime-default.onnx").stat().st_size
    assert other["size_bytes"] == stored
    assert len(call(monkeypatch, modes, words, tmp_path)) == 3


def test_files_can_be_timed_again(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(modes, "FILE_PRECISIONS", ("float32", "int8"))
    rows = call(monkeypatch, modes, f"{saved} --formats onnx --runs 3", tmp_path)
    words = f"times --work {tmp_path} --results {tmp_path / 'results'}"
    monkeypatch.setattr(sys, "argv", words.split())
    times.main()
    timed = [json.loads(line) for line in (tmp_path / "results" / times.FILE).open()]
    assert [row["mode"] for row in timed] == [row["mode"] for row in rows]
    assert {row["float_latency_p50_ms"] for row in timed} == {timed[0]["latency_p50_ms"]}
    shown = times.with_newest(rows, timed)
    assert [row["latency_p50_ms"] for row in shown] == [row["latency_p50_ms"] for row in timed]
    assert [row["top1"] for row in shown] == [row["top1"] for row in rows]
    assert times.with_newest(rows, []) == rows
    shutil.rmtree(tmp_path / "quantization")
    with pytest.raises(SystemExit, match="no files there"):
        times.main()


def test_another_size_is_for_times_alone(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(modes, "FILE_PRECISIONS", ("float32",))
    monkeypatch.setattr(modes, "peers", lambda python: {})
    (row,) = call(monkeypatch, modes, f"{saved} --formats onnx --runs 3 --size 40", tmp_path)
    assert row["size"] == 40 and row["latency_p50_ms"] > 0
    assert row["top1"] is None and row["agreement"] is None and row["test_images"] is None


def test_all_precisions_of_the_formats_are_modes() -> None:
    onnx = modes.modes("onnx", peers(Path("python")))
    assert {"float16", "int8", "int8-dynamic", "int4-weights", "int8-int16", "nncf"} < set(onnx)
    assert "int2-weights" not in onnx and "ai-edge-default" not in onnx
    tflite = modes.modes("tflite", peers(None))
    assert {"int2-weights", "int8-int16", "ai-edge-default"} < set(tflite)
    assert set(peers(Path("python"))) == set(NAMES) and "nncf" not in peers(None)


def test_a_tool_that_fails_says_so(tmp_path: Path) -> None:
    samples = np.zeros((1, 3, 8, 8), np.float32)
    peer: Peer = peers(Path(sys.executable))["nncf"]
    with pytest.raises(ValueError, match="ended with 1: .*missing.onnx|No module named 'nncf'"):
        peer.write(tmp_path / "missing.onnx", samples, tmp_path / "out.onnx")


def test_an_ai_edge_file_is_described_as_the_bench_wants_it(tmp_path: Path) -> None:
    from exporters.tflite import export_float_tflite
    from runtime_bench.manifest import ModelFile
    from runtime_bench.runtimes import load_runner

    torch.manual_seed(0)
    network = tiny().eval()
    export_float_tflite(network, tmp_path / "float.tflite", input_shape=(3, 16, 16))
    samples = np.random.default_rng(0).standard_normal((8, 3, 16, 16)).astype(np.float32)
    path = tmp_path / "other.tflite"
    peers(None)["ai-edge-default"].write(tmp_path / "float.tflite", samples, path)
    file = ModelFile.from_json(described(path, "tflite", "tiny").to_json(), "test")
    found = load_runner(path, file, 1).run(samples[:1])
    with torch.no_grad():
        expected = network(torch.from_numpy(samples[:1])).numpy()
    assert np.abs(found - expected).max() < 0.05 * np.abs(expected).max()


def test_rounded_and_trained_networks_are_in_the_row(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = f"{saved} --epochs 1 --rate 0.001"
    rows = call(monkeypatch, bits, f"{words} --precisions float32 int2-weights", tmp_path)
    control, coarse = rows
    assert control["validation_float"] == control["validation_rounded"]
    assert control["test_float"] == coarse["test_float"]
    for row in rows:
        assert row["validation_trained"] >= row["validation_rounded"]
        assert len(row["curves"]) == 1 and row["epochs"] == 1
    assert not list(tmp_path.rglob("*.pt"))
    again = call(monkeypatch, bits, f"{words} --precisions float32 int4-weights", tmp_path)
    assert [row["precision"] for row in again] == ["float32", "int2-weights", "int4-weights"]


def test_pruning_counts_the_bytes_of_the_precision(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(NETWORKS, ARCHITECTURE, Network(None, 1, 0.1))  # type: ignore[index]
    saved.rename(saved.with_name(ARCHITECTURE))
    monkeypatch.setattr(compare, "CHANNEL_STEP", 1)
    words = f"--network {ARCHITECTURE} --shares 0.5 --search-epochs 1 --finetune-epochs 1"
    rows = call(monkeypatch, joint, f"{words} --epochs 1", tmp_path)
    by_pair = {(row["assumed"], row["precision"]): row for row in rows}
    assert len(by_pair) == 5
    assert all(row["weight_bytes"] <= row["budget_bytes"] for row in rows)
    kept = [by_pair[name, name]["parameters"] for name in joint.BYTES_PER_WEIGHT]
    assert kept[0] < kept[1] <= kept[2]
    same = {row["parameters"] for row in rows if row["assumed"] == "int8"}
    assert len(same) == 1
    assert len(call(monkeypatch, joint, f"{words} --epochs 1", tmp_path)) == 5


def test_images_look_as_in_the_training_of_the_folders_baseline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Network(None, 1, 0.1, mean=(0.1, 0.2, 0.3), std=(1.0, 1.0, 1.0))
    monkeypatch.setitem(NETWORKS, "resnet20-other", other)  # type: ignore[index]
    means = {}
    for name in ("resnet20", "resnet20-other-decore-macs0.5", "resnet20-decore-macs0.5", "mine"):
        folder = tmp_path / name
        folder.mkdir()
        description = {
            "schema_version": 1, "architecture": "resnet20", "num_classes": 10, "edits": {},
        }  # fmt: skip
        (folder / "model.json").write_text(json.dumps(description))
        means[name] = saved_options(folder, "digits", "cpu").mean
    assert means.pop("resnet20-other-decore-macs0.5") == other.mean
    assert set(means.values()) == {NETWORKS["resnet20"].mean}


def test_the_mobilenets_folder_may_name_its_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_model(mobilenet_v2(10), mobilenet.ARCHITECTURE, 10, tmp_path)
    monkeypatch.delitem(sys.modules, mobilenet_v2.__module__)  # as where nobody has imported it
    options = saved_options(tmp_path, "digits", "cpu")
    assert options.model == mobilenet.ARCHITECTURE
    assert isinstance(open_task(options, 8, 1).model, MobileNetV2)


def test_the_mobilenet_is_torchvisions_but_for_two_strides() -> None:
    from torchvision import models

    ours, theirs = mobilenet_v2(10).eval(), models.mobilenet_v2(weights=None, num_classes=10).eval()
    ours.load_state_dict(theirs.state_dict())
    shapes: list[torch.Size] = []
    ours.get_submodule("features").register_forward_hook(lambda _m, _i, y: shapes.append(y.shape))
    with torch.no_grad():
        assert ours(torch.zeros(1, 3, 32, 32)).shape == (1, 10)
    assert shapes == [(1, 1280, 4, 4)]
