"""From layers to tables: what is measured, what comes from the cache, what is taken off."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_networks import two_blocks

import exporters.layer_files
import runtime_bench
from boards import load_board
from compress_export.latency_cache import LatencyCache, default_cache_folder
from compress_export.latency_tables import latency_tables
from compressor.cost import NetworkCosts, as_tensor
from compressor.graph import channel_graph

GRAPH = channel_graph(two_blocks(10).eval(), torch.zeros(1, 3, 8, 8))
BOARD = load_board("x86-64")
RUN_MS, POOL_MS = 0.003, 0.0005


@pytest.fixture
def machine(monkeypatch) -> list[str]:
    """A machine whose latency is known by formula, and the list of files that it timed."""
    timed: list[str] = []

    def describe(spec, *, format, precision, board, copies=1, pools=1) -> bytes:
        macs_ms = 1e-6 * spec.inputs * spec.outputs * spec.input_size[0]
        pool_ms = POOL_MS * pools if spec.is_conv and format == "onnx" else 0.0
        return json.dumps([RUN_MS + copies * (macs_ms + pool_ms), precision]).encode()

    def clock(paths, file_format, *, threads) -> list[float]:
        timed.extend(path.name for path in paths)
        return [json.loads(path.read_bytes())[0] for path in paths]

    monkeypatch.setattr(exporters.layer_files, "layer_file", describe)
    monkeypatch.setattr(runtime_bench, "time_small_files", clock)
    return timed


def tables_in(folder: Path, say=lambda line: None, **options):
    arguments = {"precision": "int8", "threads": 1, "say": say, "cache_folder": folder}
    return latency_tables(GRAPH, BOARD, ("onnx", "tflite"), **{**arguments, **options})


def test_tables_hold_the_layers_alone(machine, tmp_path: Path) -> None:
    said: list[str] = []
    tables = tables_in(tmp_path, said.append)
    assert [table.name for table in tables] == ["onnx", "tflite"]
    for table in tables:
        assert table.run_ms == pytest.approx(RUN_MS + (0.0), rel=1e-6)
        for key, grid in table.grids.items():
            size = key.geometry.input_size[0]
            for i, inputs in enumerate(key.inputs):
                for o, outputs in enumerate(key.outputs):
                    wide = outputs if key.geometry.kind == "elementwise" else inputs
                    expected = 1e-6 * wide * outputs * size
                    assert grid[i, o] == pytest.approx(expected, rel=1e-6, abs=1e-9)
    assert any("layer widths measured in" in line and "0 known before" in line for line in said)
    whole = as_tensor(GRAPH.all_kept())
    one, other = NetworkCosts(GRAPH, latency=tables).latencies_ms(whole).tolist()
    assert one == pytest.approx(other)


def test_nothing_is_measured_twice(machine, tmp_path: Path) -> None:
    first = tables_in(tmp_path)
    count = len(machine)
    assert count > 100
    said: list[str] = []
    again = tables_in(tmp_path, said.append)
    assert len(machine) == count
    for old, new in zip(first, again, strict=True):
        np.testing.assert_equal(new.grids, old.grids)
    assert any("0 layer widths measured" in line for line in said)
    for other in ({"threads": 2}, {"precision": "float32"}):
        before = len(machine)
        tables_in(tmp_path, **other)
        assert len(machine) > before + 100
    files = sorted(tmp_path.glob("latency-*.json"))
    assert len(files) == 6
    assert not list(tmp_path.glob("*.tmp"))


def test_a_precision_without_a_step_of_its_own_takes_the_boards(machine, tmp_path: Path) -> None:
    board = BOARD.model_copy(update={"precisions": ("int8",), "channel_steps": {"int8": 4}})
    arguments = {"precision": "float32", "threads": 1, "say": lambda line: None}
    tables = latency_tables(GRAPH, board, ("onnx",), **arguments, cache_folder=tmp_path)
    assert [table.channel_step for table in tables] == [4]


def test_a_broken_cache_is_measured_anew(machine, tmp_path: Path) -> None:
    tables_in(tmp_path)
    count = len(machine)
    first, second = sorted(tmp_path.glob("latency-*.json"))
    first.write_text("{ cut off")
    content = json.loads(second.read_text())
    content["milliseconds"][next(iter(content["milliseconds"]))] = float("nan")
    second.write_text(json.dumps(content))
    said: list[str] = []
    tables_in(tmp_path, said.append)
    assert len(machine) == 2 * count
    assert sum("notice:" in line and "measuring anew" in line for line in said) == 2
    assert json.loads(first.read_text())["schema_version"] == 1


def test_cache_round_trip(tmp_path: Path) -> None:
    notices: list[str] = []
    cache = LatencyCache(tmp_path / "a", {"runtime": "r 1", "rules": ("x",)}, notices.append)
    assert (cache.milliseconds, cache.seconds) == ({}, 0.0)
    cache.add({"conv": 0.25}, 1.5)
    cache.add({"add": 0.125}, 0.5)
    again = LatencyCache(tmp_path / "a", {"rules": ("x",), "runtime": "r 1"}, notices.append)
    assert again.milliseconds == {"conv": 0.25, "add": 0.125}
    assert again.seconds == 2.0
    assert LatencyCache(tmp_path / "a", {"runtime": "r 2"}, notices.append).milliseconds == {}
    # a file under the right name with another identity inside
    other = LatencyCache(tmp_path / "a", {"runtime": "r 3"}, notices.append)
    other.path.write_text(cache.path.read_text())
    assert notices == []
    LatencyCache(tmp_path / "a", {"runtime": "r 3"}, notices.append)
    assert len(notices) == 1
    assert "belongs to something else" in notices[0]


def test_a_folder_that_cannot_be_written_costs_only_the_cache(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    cache = LatencyCache(tmp_path / "file", {}, lambda line: None)
    cache.add({"conv": 1.0}, 1.0)
    assert cache.milliseconds == {"conv": 1.0}


def test_where_the_cache_lies(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache_folder() == tmp_path / "compress-export"
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for value in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", value)
        assert default_cache_folder() == tmp_path / "home" / ".cache" / "compress-export"


def test_real_runtimes_give_a_table(tmp_path: Path, monkeypatch) -> None:
    """End to end on a network of a few layers: every point is measured and not negative."""
    from torch import nn

    from compress_export import latency_tables as module

    timed = runtime_bench.time_small_files

    def quickly(paths, file_format, *, threads):
        return timed(paths, file_format, threads=threads, rounds=1, burst_ms=0.1)

    monkeypatch.setattr(runtime_bench, "time_small_files", quickly)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 8, 3, 2, 1))
    graph = channel_graph(net, torch.zeros(1, 3, 8, 8))
    tables = module.latency_tables(
        graph,
        BOARD,
        ("onnx", "tflite"),
        precision="int8",
        threads=1,
        say=lambda line: None,
        cache_folder=tmp_path,
    )
    costs = NetworkCosts(graph, latency=tables)
    assert 0 < float(costs.latency_ms(as_tensor(graph.all_kept()))) < 1000
