"""A latency target: its option, when it binds, and how the measured network meets it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_networks import two_blocks

from boards import Board, load_board
from compress_export.corrections import MOST_CORRECTIONS, Met, meet
from compress_export.data import Preprocessing
from compress_export.durations import parse_latency_ms
from compress_export.errors import UsageError
from compress_export.job_file import resolve_options
from compress_export.latency_target import (
    files_p90_ms,
    refuse_unsearchable,
    why_not_searchable,
)
from compress_export.options import JobOptions
from compress_export.targets import EstimatedFile, Target, choose_target, resolved_budgets
from compressor.cost import Limits, NetworkCosts, as_tensor
from compressor.decore.projection import TargetError, project
from compressor.graph import Keep, channel_graph
from compressor.latency import LatencyTable, timed_layers

GRAPH = channel_graph(two_blocks(10).eval(), torch.zeros(1, 3, 8, 8))
STEP = 4
RANKING = np.random.default_rng(0).normal(size=GRAPH.class_count)


def table(name: str = "onnx", speed: float = 1.0) -> LatencyTable:
    keys = {layer.key for layer in timed_layers(GRAPH, STEP)}
    grids = {
        key: np.outer(key.inputs, key.outputs) * 1e-4 * key.geometry.input_size[0] / speed
        for key in keys
    }
    return LatencyTable(name, STEP, grids, 0.01)


COSTS = NetworkCosts(GRAPH, latency=[table()])
WHOLE_MS = float(COSTS.latency_ms(as_tensor(GRAPH.all_kept())))


def choose(limits: Limits) -> Keep:
    return project(RANKING, GRAPH, limits, STEP)


def met(wanted_ms: float, measure, costs: NetworkCosts = COSTS) -> tuple[Met, list[str]]:
    said: list[str] = []
    limits = Limits(costs, {"latency_ms": wanted_ms})
    return meet(choose, limits, corrected_by(measure), said.append), said


def corrected_by(measure):
    def correct(keep: Keep, limits: Limits) -> Limits:
        return Limits(limits.costs.calibrated(as_tensor(keep), measure(keep)), limits.limits)

    return correct


def slowest_ms(found: Met) -> float:
    """What was measured: the corrected tables agree with it."""
    return float(found.limits.costs.latency_ms(as_tensor(found.keep)))


def truth(factor: float, extra_ms: float = 0.0):
    """A machine that needs factor x the table + extra_ms."""
    return lambda keep: (factor * float(COSTS.latency_ms(as_tensor(keep))) + extra_ms,)


def test_a_table_that_is_right_is_asked_once() -> None:
    found, said = met(0.6 * WHOLE_MS, truth(1.0))
    assert found.measurements == 1
    assert 0.97 * 0.6 * WHOLE_MS < slowest_ms(found) <= 0.6 * WHOLE_MS
    assert len(said) == 1


@pytest.mark.parametrize("factor", [0.6, 0.9, 1.1, 1.7])
@pytest.mark.parametrize("extra_ms", [0.0, 0.3])
def test_a_table_that_is_wrong_is_corrected(factor: float, extra_ms: float) -> None:
    wanted_ms = 0.5 * WHOLE_MS
    found, _ = met(wanted_ms, truth(factor, extra_ms))
    assert 2 <= found.measurements <= 1 + MOST_CORRECTIONS
    assert slowest_ms(found) <= wanted_ms
    # near the target, or no further step fits
    wider = choose(Limits(found.limits.costs, {"latency_ms": wanted_ms}))
    assert slowest_ms(found) > 0.93 * wanted_ms or (wider == found.keep).all()


def test_the_factor_of_the_unpruned_network_is_a_calibration() -> None:
    """The limit is in real milliseconds once the tables agree with one measured network."""
    costs = COSTS.calibrated(as_tensor(GRAPH.all_kept()), truth(1.7)(GRAPH.all_kept()))
    found, _ = met(0.5 * 1.7 * WHOLE_MS, truth(1.7), costs)
    assert found.measurements == 1


def test_every_format_has_to_be_fast_enough() -> None:
    costs = NetworkCosts(GRAPH, latency=[table(), table("tflite", 3.0)])

    def machine(keep: Keep) -> tuple[float, float]:
        fast, slow = costs.latencies_ms(as_tensor(keep)).tolist()
        return fast, 5 * slow  # the second one is the slower one, against its table

    found, _ = met(0.5 * WHOLE_MS, machine, costs)
    assert slowest_ms(found) == pytest.approx(machine(found.keep)[1])
    assert 0.9 * 0.5 * WHOLE_MS < slowest_ms(found) <= 0.5 * WHOLE_MS


def test_another_limit_that_binds_ends_it() -> None:
    macs = 0.3 * float(COSTS.macs(as_tensor(GRAPH.all_kept())))
    limits = Limits(COSTS, {"latency_ms": 0.9 * WHOLE_MS, "macs": macs})
    found = meet(choose, limits, corrected_by(truth(1.0)), lambda line: None)
    assert found.measurements == 1
    assert slowest_ms(found) < 0.8 * WHOLE_MS
    assert float(COSTS.macs(as_tensor(found.keep))) <= macs


def test_noise_ends_after_three_corrections_with_the_best_that_was_seen() -> None:
    generator = np.random.default_rng(1)
    measured: list[float] = []

    def noisy(keep: Keep) -> tuple[float]:
        ms = float(COSTS.latency_ms(as_tensor(keep))) * float(generator.uniform(0.8, 1.3))
        measured.append(ms)
        return (ms,)

    wanted_ms = 0.5 * WHOLE_MS
    found, said = met(wanted_ms, noisy)
    assert len(measured) == len(said) <= 1 + MOST_CORRECTIONS
    fast_enough = [ms for ms in measured if ms <= wanted_ms]
    expected_ms = max(fast_enough) if fast_enough else min(measured)
    assert slowest_ms(found) == pytest.approx(expected_ms)


def test_what_cannot_be_met() -> None:
    with pytest.raises(TargetError):
        met(0.001, truth(1.0))
    # only the measurement shows it: the fastest network that was measured, not an error
    found, said = met(0.5 * WHOLE_MS, truth(1.0, extra_ms=WHOLE_MS))
    assert slowest_ms(found) > 0.5 * WHOLE_MS
    assert any("latency_ms is" in line for line in said) or found.measurements > 1


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [("5ms", 5.0), ("0.8 ms", 0.8), ("250us", 0.25), ("1.5S", 1500.0)],
)
def test_latencies_with_units(text: str, milliseconds: float) -> None:
    assert parse_latency_ms(text) == pytest.approx(milliseconds)
    options = resolve_options({"board": "x86-64", "target_latency": text})
    assert options.target_latency_ms == pytest.approx(milliseconds)
    again = JobOptions(**{**options.identity()})
    assert again.target_latency_ms == options.target_latency_ms


@pytest.mark.parametrize("text", ["5", "", "ms", "-1ms", "0ms", "5 mins", "5ms/image", "1e3ms"])
def test_latencies_without_a_usable_unit_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--target-latency .*(latency|zero)"):
        resolve_options({"board": "x86-64", "target_latency": text})
    with pytest.raises(UsageError, match="number with a unit"):
        resolve_options({"board": "x86-64", "target_latency": 5})


UNPRUNED = EstimatedFile.unpruned("whole.onnx", COSTS, GRAPH)


def target(budgets: dict[str, float], p90_ms: dict[str, float] | None, **options: Any) -> Target:
    given = JobOptions(board="x86-64", **options)
    resolved = resolved_budgets(given, budgets)
    return choose_target(given, resolved, COSTS, GRAPH, [UNPRUNED], p90_ms)


def test_a_missed_latency_budget_binds() -> None:
    found = target({"latency_p90_ms": 2.0}, {"whole.onnx": 3.0, "whole.tflite": 1.0})
    assert found.limits == {"latency_ms": 2.0}
    assert "whole.onnx misses latency_p90_ms (3 of 2 ms)" in found.why
    assert "tflite" not in found.why
    # what is met, or can't be measured here, doesn't steer
    assert target({"latency_p90_ms": 4.0}, {"whole.onnx": 3.0}).smallest
    assert target({"latency_p90_ms": 2.0}, None).smallest


def test_the_users_latency() -> None:
    found = target({"latency_p90_ms": 9.0}, {"whole.onnx": 3.0}, target_latency="2ms")
    assert (found.limits, found.smallest) == ({"latency_ms": 2.0}, False)
    assert found.why.startswith("2 ms for each quantized file; whole.onnx misses latency_p90_ms")
    tighter = target({"latency_p90_ms": 1.0}, {"whole.onnx": 3.0}, target_latency="2ms")
    assert tighter.limits == {"latency_ms": 1.0}
    met_already = target({}, {"whole.onnx": 1.0}, target_latency="2ms")
    assert met_already.limits == {}
    assert "already meet" in met_already.why
    assert "yet to be timed" in target({}, None, target_latency="2ms").why
    both = target({}, {"whole.onnx": 3.0}, target_latency="2ms", target_size="2KiB")
    assert both.limits.keys() == {"latency_ms", "weight_bytes"}
    macs = target({}, {"whole.onnx": 3.0}, target_latency="2ms", target_macs=0.5)
    assert macs.limits.keys() == {"macs", "latency_ms"}


def test_an_accelerators_latency_is_not_measured_on_cpu_cores(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import runtime_bench

    monkeypatch.setattr(runtime_bench, "host_matches", lambda *_: True)
    for board, format, profile in (
        ("jetson", "onnx", "tensorrt"),
        ("coral", "tflite", "edge-tpu"),
    ):
        reason = why_not_searchable(load_board(board), (format,))
        assert reason == f"{format} files are timed on CPU cores here, not on {profile}"
    assert why_not_searchable(load_board("jetson"), ("tflite",)) is None
    assert why_not_searchable(load_board("jetson")) is not None
    wanted = JobOptions(board="jetson", target_latency="5ms", formats="onnx,tflite")
    with pytest.raises(UsageError, match="CPU cores here, not on tensorrt; run this where it"):
        refuse_unsearchable(wanted, load_board("jetson"))


def board_of(arch: str, isa: tuple[str, ...]) -> Board:
    board = load_board("x86-64")
    return board.model_copy(update={"cpu": board.cpu.model_copy(update={"arch": arch, "isa": isa})})


def test_only_a_machine_of_the_boards_kind_can_tell(monkeypatch) -> None:
    import runtime_bench

    facts = replace(
        runtime_bench.host_facts(), arch="aarch64", isa=("neon",), flags=frozenset({"neon"})
    )
    monkeypatch.setattr(runtime_bench, "host_facts", lambda: facts)
    assert why_not_searchable(board_of("aarch64", ("neon",))) is None
    other = why_not_searchable(board_of("x86_64", ()))
    assert other == "this machine is aarch64, board x86-64 is x86_64"
    lacking = why_not_searchable(board_of("aarch64", ("neon", "dotprod")))
    assert lacking == "this machine lacks dotprod of board x86-64"
    newer = replace(facts, flags=frozenset({"neon", "dotprod"}))
    monkeypatch.setattr(runtime_bench, "host_facts", lambda: newer)
    faster = why_not_searchable(board_of("aarch64", ("neon",)))
    assert faster == "this machine has dotprod, which board x86-64 lacks"
    monkeypatch.setattr(runtime_bench, "host_facts", lambda: facts)
    wanted = JobOptions(board="x86-64", target_latency="5ms")
    with pytest.raises(UsageError, match="--target-latency 5ms: this machine is aarch64"):
        refuse_unsearchable(wanted, board_of("x86_64", ()))
    refuse_unsearchable(JobOptions(board="x86-64"), board_of("x86_64", ()))
    refuse_unsearchable(wanted, board_of("aarch64", ("neon",)))
    dynamic = wanted.model_copy(update={"precision": ("int8-dynamic",)})
    with pytest.raises(UsageError, match="latency in int8-dynamic has no tables"):
        refuse_unsearchable(dynamic, board_of("aarch64", ("neon",)))


def test_files_are_measured_without_a_trace(tmp_path: Path, monkeypatch) -> None:
    """p90 of real files, by format; the folder stays as it was."""
    monkeypatch.setattr("compress_export.latency_target._REPEATS", 1)
    from torch import nn

    from exporters import Calibration, export_files, write_manifest

    def images():
        yield np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype(np.float32)

    board = load_board("x86-64")
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)).eval()
    files = export_files(
        net,
        stage="baseline",
        folder=tmp_path,
        input_shape=(3, 8, 8),
        calibration=Calibration(images),
        validation=images,
        board=board,
        formats=("onnx",),
        precisions=("int8",),
        progress=lambda line: None,
    )

    class Exports:
        say = staticmethod(lambda line: None)

        def finish_reference(self, folder, files) -> None:
            write_manifest(
                folder,
                files,
                board=board,
                model="net",
                classes=("a", "b", "c"),
                input_shape=(3, 8, 8),
                preprocessing=Preprocessing(8, (0.0,) * 3, (1.0,) * 3).to_json(),
            )

    before = sorted(path.name for path in tmp_path.iterdir())
    found = files_p90_ms(Exports(), tmp_path, files, threads=1, runs=5)  # type: ignore[arg-type]
    assert found.keys() == {"onnx"}
    assert found["onnx"] > 0
    assert sorted(path.name for path in tmp_path.iterdir()) == before
