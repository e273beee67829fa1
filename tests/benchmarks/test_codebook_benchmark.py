"""The codebook benchmark on a few digits, and its page."""

from __future__ import annotations

import gzip
import json
import lzma
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.codebook import coding, page, run
from benchmarks.codebook.sizes import compressed
from compressor.codebook.sharing import bake, entries_of, share_weights
from compressor.saved import save_model

ROOT = Path(__file__).parents[2]


class Tiny(nn.Module):
    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, 2, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.head = nn.Linear(8, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.norm(self.conv(x))).mean((2, 3)))  # [N, 3, H, W] -> [N, K]


def tiny(num_classes: int = 10) -> nn.Module:
    return Tiny(num_classes)


@pytest.fixture
def rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Two runs of the command, the second of which finds most of its work done."""
    torch.manual_seed(0)
    architecture = f"{__name__}:tiny"
    save_model(tiny(), architecture, 10, tmp_path / "tiny")
    distinct: list[dict[str, int]] = []

    def sizes(task: object, model: nn.Module) -> dict[str, Any]:
        distinct.append(entries_of(model))
        return {"codebook": {"bytes": 100, "expanded_bytes": 1000}}

    monkeypatch.setattr(run, "file_sizes", sizes)
    words = f"--data digits --images 48 --epochs 1 --threads 1 --baseline {tmp_path / 'tiny'} "
    words += f"--work {tmp_path / 'work'} --results {tmp_path}"
    for entries in ("4", "4 16"):
        command = f"codebook {words} --entries {entries} --fits none kmeans"
        monkeypatch.setattr(sys, "argv", command.split())
        run.main()
    assert [max(found.values()) for found in distinct] == [216, 4, 16]
    assert not list((tmp_path / "work").rglob("*.pt"))
    lines = (tmp_path / "codebook.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_every_run_is_done_once(rows: list[dict[str, Any]]) -> None:
    assert [(row["fit"], row["entries"]) for row in rows] == [
        ("none", 0),
        ("kmeans", 4),
        ("kmeans", 16),
    ]
    dense, coarse, fine = rows
    assert dense["weight_error"] == 0 < fine["weight_error"] < coarse["weight_error"] < 1
    for row in rows:
        assert (row["network"], row["images"], row["epochs"]) == ("tiny", 48, 1)
        assert row["validation_top1"] >= row["validation_top1_before"]
        assert 0 <= row["test_top1"] <= 1
        assert len(row["curves"]) == 1


def test_weight_error_by_hand() -> None:
    torch.manual_seed(0)
    model = tiny()
    shared = share_weights(model, 2)
    error = run.weight_error(model, shared)
    old, new = (
        np.concatenate(
            [net.get_submodule(n).weight.detach().numpy().ravel() for n in ("conv", "head")]
        )
        for net in (model, bake(shared))
    )
    assert error == pytest.approx(((old - new) ** 2).sum() / (old**2).sum(), rel=1e-5)


def test_compressed_sizes_are_those_of_the_tools() -> None:
    content = bytes(range(256)) * 50
    found = compressed(content)
    assert found["bytes"] == len(content)
    assert gzip.decompress(gzip.compress(content, 9)) == content
    assert found["xz_bytes"] == len(lzma.compress(content)) < 1000
    assert abs(found["gzip_bytes"] - len(gzip.compress(content, 9))) <= 16


def row(entries: int, fit: str, test: float, seed: int = 0, **changes: Any) -> dict[str, Any]:
    files = {
        name: {"bytes": 300 * 1024, "gzip_bytes": 200 * 1024, "xz_bytes": 150 * 1024}
        for name in ("float32.onnx", "int8.onnx", "float32.tflite", "int8.tflite")
    }
    files["codebook"] = {"bytes": 100 * 1024, "expanded_bytes": 1000 * 1024}
    return {
        "network": "resnet20", "entries": entries, "fit": fit, "epochs": 5, "learning_rate": 0.01,
        "seed": seed, "images": None, "weight_error": 0.0123, "validation_top1_before": 0.85,
        "validation_top1": 0.895, "test_top1_before": test - 0.03, "test_top1": test,
        "files": files, **changes,
    }  # fmt: skip


def test_the_tables_say_what_the_rows_say() -> None:
    made = [
        row(16, "mixture", 0.88),
        row(16, "kmeans", 0.88),
        row(16, "kmeans", 0.89, seed=1),
        row(0, "none", 0.90, test_top1_before=0.892),
        row(2, "kmeans", 0.5, images=256),  # a trial: not shown
    ]
    parts = page.sections(made)
    lines = parts["accuracy"].splitlines()[2:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert [(c[1], c[2]) for c in cells] == [
        ("all", "no codebook"),
        ("16", "k-means"),
        ("16", "mixture"),
    ]
    assert cells[1][-2:] == ["88.50 [88.00, 89.00]", "0.70 [0.20, 1.20]"]
    assert cells[0][-1] == "-0.80"
    assert cells[1][4] == "1.23 [1.23, 1.23]"
    assert "| 100.0 | 10.0 | 300.0, 200.0, 150.0 |" in parts["sizes"]


def test_the_page_shows_the_committed_rows() -> None:
    text = page.PAGE.read_text(encoding="utf-8")
    assert page.filled(page.FOLDER) == text
    assert re.search(r"generated: accuracy", text)


@pytest.mark.parametrize("bits", [1, 2, 4, 6, 8])
def test_packed_indices_come_back(bits: int) -> None:
    indices = np.random.default_rng(bits).integers(0, 2**bits, 100)
    found = coding.packed(indices, bits)
    assert len(found) == -(-100 * bits // 8)
    number = int.from_bytes(found, "little")
    assert [(number >> (bits * i)) & (2**bits - 1) for i in range(100)] == indices.tolist()


def test_the_entropy_of_indices_is_that_of_their_shares() -> None:
    assert coding.entropy_bits(np.array([0, 1] * 8)) == pytest.approx(16)
    assert coding.entropy_bits(np.zeros(9, np.int64)) == 0
    assert coding.entropy_bits(np.array([0, 0, 1, 2])) == pytest.approx(4 * 1.5)


def test_figures_of_a_network_without_training() -> None:
    torch.manual_seed(0)
    layers = coding.weights_of(tiny())
    assert [len(layer) for layer in layers] == [8 * 3 * 9, 80]
    few, many = (coding.figures(layers, entries, 0) for entries in (2, 16))
    for fit in ("kmeans", "kmeans-linear", "mixture"):
        assert many["squared_error"][fit] < few["squared_error"][fit]
        assert many["squared_error"]["kmeans"] <= 1.3 * many["squared_error"][fit]
    assert few["bytes"]["packed"]["plain"] == 27 + 10
    assert few["bytes"]["bytewise"]["plain"] == 8 * 3 * 9 + 80
