"""Several limits at once: all are met, the binding ones closely, and a resumed run agrees."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_jobs import NETWORK, QUICK, Ended, run_here
from tiny_networks import two_blocks

from compress_export import latency_target, measured_limits, plan
from compress_export.reached import Reached, reached
from compressor.cost import CostName, Limits, NetworkCosts, as_tensor
from compressor.decore.projection import class_step, project
from compressor.graph import Keep, channel_graph
from compressor.latency import LatencyTable, timed_layers

ROOT = Path(__file__).parents[2]
Job = Callable[..., Ended]
STEP = 8
GRAPH = channel_graph(two_blocks(10).eval(), torch.zeros(1, 3, 8, 8))


def board_with(folder: Path, **budgets: float) -> Path:
    board = yaml.safe_load((ROOT / "boards" / "x86-64.yaml").read_text())
    board["cpu"] |= {"isa": []}  # any x86-64 machine can speak for it
    board["quantization"]["onnx"] |= {"reduce_range": True}  # which such a board needs
    board["budgets"] |= {"accuracy_drop_points": 99.0, **budgets}
    (folder / "mine.yaml").write_text(yaml.safe_dump(board))
    return folder / "mine.yaml"


# -- which limit binds -----------------------------------------------------------------------------


@settings(max_examples=40)
@given(
    macs=st.floats(0.15, 1.1),
    weight_bytes=st.floats(0.15, 1.1),
    activation_bytes=st.floats(0.3, 1.1),
    seed=st.integers(0, 1000),
)
def test_what_binds_is_a_step_away(
    macs: float, weight_bytes: float, activation_bytes: float, seed: int
) -> None:
    costs, everything = NetworkCosts(GRAPH), as_tensor(GRAPH.all_kept())
    shares: dict[CostName, float] = {
        "macs": macs,
        "weight_bytes": weight_bytes,
        "activation_bytes": activation_bytes,
    }
    limits = Limits(costs, {n: s * float(costs.value(n, everything)) for n, s in shares.items()})
    ranking = np.random.default_rng(seed).normal(size=GRAPH.class_count)
    keep = project(ranking, GRAPH, limits, STEP)
    found = {entry.cost: entry for entry in reached(keep, ranking, GRAPH, limits, STEP)}
    assert list(found) == list(shares)
    over: set[str] = set()
    for wider in all_wider(keep, ranking):
        ratios = limits.ratios(as_tensor(wider))
        assert max(ratios.values()) > 1  # or `project` would have taken it
        over |= {name for name, ratio in ratios.items() if ratio == max(ratios.values())}
    assert {name for name, entry in found.items() if entry.binds} == over
    assert all(entry.share <= 1 for entry in found.values())
    assert bool(over) == (not keep.all())


def all_wider(keep: Keep, ranking: np.ndarray) -> Iterator[Keep]:
    for group in GRAPH.groups:
        dropped = sorted(group.classes[~keep[group.classes]], key=lambda c: -ranking[c])
        if dropped and len(dropped) < len(group.classes):
            wider = keep.copy()
            wider[dropped[: class_step(group, STEP)]] = True
            yield wider


def test_lines_for_people() -> None:
    near = Reached("weight_bytes", 30_000, 30_720, True)
    assert near.line == "29.3 of 30 KiB of weights, 0.977 of the limit, which binds"
    slow = Reached("latency_ms", 1.2, 1.0, True)
    assert slow.line == "1.2 of 1 ms, 1.200 of the limit, which cannot be met"
    assert Reached.from_json(json.loads(json.dumps(near.to_json()))) == near


# -- budgets in bytes ------------------------------------------------------------------------------


def deployed(ended: Ended) -> dict[str, Any]:
    (file,) = [a for a in ended.report["artifacts"] if a["path"].startswith("bundle/")]
    return dict(file)


def test_several_budgets_are_all_met(job: Job, tmp_path: Path) -> None:
    board = board_with(tmp_path, file_size_mib=46 / 1024, activation_memory_mib=2064 / 2**20)
    words = "--stages prune,quantize --formats onnx --method uniform --target-macs 0.6 --board"
    ended = job(words, board)
    assert ended.code == 0, ended.complained
    file, stages = deployed(ended), ended.report["stages"]
    shares = {
        "weight_bytes": file["size_bytes"] / (46 * 1024),
        "activation_bytes": file["activation_bytes"] / 2064,
        "macs": stages["slim"]["macs"] / stages["baseline"]["macs"] / 0.6,
    }
    limits = {entry["cost"]: entry for entry in ended.report["limits"]}
    assert limits.keys() == shares.keys()
    for cost, share in shares.items():
        assert share <= 1
        assert limits[cost]["share"] == pytest.approx(share, abs=0.03)
    binding = [cost for cost, entry in limits.items() if entry["binds"]]
    assert binding
    assert max(shares[cost] for cost in binding) > 0.98
    # in the log and in the summary
    assert ended.said.count("of the limit, which binds") == 2 * len(binding)


def test_a_size_is_met_by_the_file_itself(job: Job, tmp_path: Path) -> None:
    """What a file holds beside the weights shrinks with them, which the first guess can't know."""
    board = board_with(tmp_path, file_size_mib=40 / 1024)
    ended = job("--stages prune,quantize --formats tflite --method uniform --board", board)
    assert ended.code == 0, ended.complained
    (entry,) = ended.report["limits"]
    assert entry["binds"]
    first, *_, last = re.findall(r"shares of the limits: weight_bytes ([\d.]+)", ended.said)
    assert float(first) < 0.98 < float(last) <= 1
    assert 0.98 * 40 * 1024 < deployed(ended)["size_bytes"] <= 40 * 1024


def test_a_budget_that_no_network_meets(job: Job, tmp_path: Path) -> None:
    board = board_with(tmp_path, file_size_mib=50 / 1024, activation_memory_mib=300 / 2**20)
    ended = job("--stages prune,quantize --formats tflite --board", board)
    assert ended.code == 1, ended.complained
    (missed,) = [c for c in ended.report["violations"] if c["budget"] == "target"]
    assert "activation_bytes is" in missed["note"]
    assert f"activation_bytes is {missed['value']:.2f} times its limit" in ended.said
    assert ended.report["limits"] == []


# -- latency, measured by a machine that is made up ------------------------------------------------


class Machine:
    """A machine whose files need other times than its tables say; counts how often it is asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.tables = self.timed = 0
        monkeypatch.setattr(latency_target, "why_not_searchable", lambda *_: None)
        monkeypatch.setattr(measured_limits, "why_not_searchable", lambda *_: None)
        monkeypatch.setattr(measured_limits, "latency_tables", self.latency_tables)
        monkeypatch.setattr(measured_limits, "files_p90_ms", self.files_p90_ms)

    def latency_tables(self, graph: Any, board: Any, formats: Any, **_: Any) -> Any:
        self.tables += 1
        step = board.channel_steps["int8"]
        keys = {layer.key for layer in timed_layers(graph, step)}
        grids = {key: np.outer(key.inputs, key.outputs) * 1e-4 for key in keys}
        return tuple(LatencyTable(name, step, grids, 0.1) for name in formats)

    def files_p90_ms(self, exports: Any, folder: Path, files: Any, **_: Any) -> dict[str, float]:
        """Milliseconds in proportion to the bytes of the weights; another law than the tables'."""
        self.timed += 1
        return {f.format: 0.3 + sum(f.weight_bytes.values()) * 2e-5 for f in files}


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(monkeypatch)


LATENCY = "--stages prune --formats onnx --target-latency 1ms --board"


def test_a_latency_is_met(job: Job, tmp_path: Path, machine: Machine) -> None:
    ended = job(LATENCY.replace("prune", "prune,quantize"), board_with(tmp_path))
    assert ended.code == 0, ended.complained
    (entry,) = ended.report["limits"]
    assert entry["cost"] == "latency_ms"
    assert entry["limit"] == 1.0
    assert 0.9 < entry["share"] <= 1
    file = deployed(ended)
    assert 0.3 + sum(file["weight_bytes"].values()) * 2e-5 == pytest.approx(entry["value"])
    assert machine.tables == 1
    assert 2 <= machine.timed <= 5
    assert "misses latency_p90_ms" in ended.report["target"]
    assert ended.report["timings_seconds"]["limits"] > 0


def test_a_latency_that_is_met_already_needs_no_tables(
    job: Job, tmp_path: Path, machine: Machine
) -> None:
    words = LATENCY.replace("1ms", "90ms")
    ended = job(words, board_with(tmp_path))
    assert ended.code == 0, ended.complained
    assert "already meet" in ended.report["target"]
    assert (machine.tables, machine.timed) == (0, 1)


def test_a_latency_that_cannot_be_met(
    job: Job, tmp_path: Path, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the tables: nothing is pruned. By measuring: the fastest network, and by how much."""
    hopeless = job(LATENCY.replace("1ms", "20us"), board_with(tmp_path))
    assert hopeless.code == 1, hopeless.complained
    assert "latency_ms is" in hopeless.report["violations"][0]["note"]

    monkeypatch.setattr(measured_limits, "files_p90_ms", lambda *_, **__: {"onnx": 2.0})
    ended = job(LATENCY, board_with(tmp_path), "--force")
    assert ended.code == 1, ended.complained
    (missed,) = [c for c in ended.report["violations"] if c["budget"] == "target"]
    assert missed["value"] == pytest.approx(2.0)
    assert "2 of 1 ms, 2.000 of the limit, which cannot be met" in ended.said


def test_a_resumed_run_does_not_measure_again(
    tmp_path: Path, trained: Path, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = [*NETWORK, *QUICK, "--weights", trained, *shlex.split(LATENCY)]
    arguments.append(board_with(tmp_path))
    undisturbed = run_here(tmp_path / "undisturbed", *arguments)
    asked = machine.timed

    def stop(*_: Any, **__: Any) -> float:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("compress_export.pruning.fit", stop)
        assert run_here(tmp_path / "out", *arguments).code == 130
    assert machine.timed == 2 * asked
    monkeypatch.setattr(measured_limits, "files_p90_ms", stop)
    resumed = run_here(tmp_path / "out", *arguments, "--resume")
    assert resumed.code == 0, resumed.complained
    assert resumed.report["limits"] == undisturbed.report["limits"]
    weights = "torch/slim/model.safetensors"
    assert (resumed.out / weights).read_bytes() == (undisturbed.out / weights).read_bytes()


def test_on_another_machine(job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The user's latency is refused, a board's own one is named and left out."""
    reason = "this machine is a teapot"
    for module in (latency_target, measured_limits, plan):
        monkeypatch.setattr(module, "why_not_searchable", lambda *_: reason)
    refused = job(LATENCY, board_with(tmp_path))
    assert refused.code == 2
    assert refused.complained.count("\n") == 1
    assert reason in refused.complained
    assert not refused.out.exists()
    assert job(LATENCY, board_with(tmp_path), "--dry-run").code == 2

    board = board_with(tmp_path, latency_p90_ms=0.001)
    ended = job("--stages prune --target-macs 0.6 --board", board)
    assert ended.code == 0, ended.complained
    assert f"latency_p90_ms does not steer the search: {reason}" in ended.said
    assert [entry["cost"] for entry in ended.report["limits"]] == ["macs"]
    planned = job("--dry-run --force --board", board)  # the folder is taken by now
    assert f"decided after measuring, does not steer the search: {reason}" in planned.said
