"""What the search has to reach: which wish or budget comes first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from tiny_networks import two_blocks

from boards import Budgets
from compress_export.options import JobOptions
from compress_export.targets import EstimatedFile, Target, choose_target, resolved_budgets
from compressor.cost import NetworkCosts
from compressor.graph import channel_graph

GRAPH = channel_graph(two_blocks(10).eval(), torch.zeros(1, 3, 8, 8))
COSTS = NetworkCosts(GRAPH, 1, 1)
UNPRUNED = EstimatedFile.unpruned("whole", COSTS, GRAPH)
OVERHEAD = 5000  # bytes that a file holds beside its weights


@dataclass(frozen=True)
class File:
    name: str = "baseline.int8.onnx"
    size_bytes: int = UNPRUNED.size_bytes + OVERHEAD
    activation_bytes: int = 2 * UNPRUNED.activation_bytes

    @property
    def weight_bytes(self) -> dict[str, int]:
        return {"int8": UNPRUNED.size_bytes}


def target(budgets: dict[str, float], **options: Any) -> Target:
    given = JobOptions(board="jetson", **options)
    return choose_target(given, resolved_budgets(given, budgets), COSTS, GRAPH, [File()])


def macs() -> int:
    """Multiply-accumulates by hand: convolutions of (3 x 3 or 1 x 1), then the linear layer."""
    stem = 64 * 32 * 3 * 9
    first = 16 * 32 * (32 * 9 + 32 * 9 + 32)
    second = 4 * 64 * (32 * 9 + 64 * 9 + 32)
    return stem + first + second + 640


def test_macs_and_every_missed_budget() -> None:
    found = target({"file_size_mib": 64}, target_macs=0.25)
    assert found.limits == {"macs": pytest.approx(0.25 * macs())}
    assert found.why == "0.25 of the MACs"
    assert not found.smallest
    memory_mib = 0.5 * File().activation_bytes / 2**20
    found = target({"activation_memory_mib": memory_mib}, target_macs=0.25, target_size="20KiB")
    assert found.limits == {
        "macs": pytest.approx(0.25 * macs()),
        "weight_bytes": pytest.approx(20 * 1024 - OVERHEAD),
        "activation_bytes": pytest.approx(UNPRUNED.activation_bytes / 2),
    }
    assert found.why.startswith("0.25 of the MACs and 0.0195 MiB for each quantized file; baseline")


def test_then_the_size_without_what_a_file_holds_beside_weights() -> None:
    found = target({"activation_memory_mib": 1}, target_size="20KiB")
    assert found.limits == {"weight_bytes": pytest.approx(20 * 1024 - OVERHEAD)}
    assert target({}, target_size="1MiB").limits == {}


def test_the_boards_own_size_can_be_the_tighter_one() -> None:
    found = target({"file_size_mib": 10 / 1024}, target_size="20KiB")
    assert found.limits == {"weight_bytes": pytest.approx(10 * 1024 - OVERHEAD)}


def test_then_the_budgets_that_are_missed() -> None:
    memory_mib = 0.5 * File().activation_bytes / 2**20
    budgets = {"activation_memory_mib": memory_mib, "file_size_mib": 64, "latency_p90_ms": 0.1}
    found = target(budgets)
    # the file's activations are twice the estimate, so half of the file's is half of the estimate
    assert found.limits == {"activation_bytes": pytest.approx(UNPRUNED.activation_bytes / 2)}
    assert "baseline.int8.onnx misses activation_memory_mib" in found.why


def test_else_as_small_as_accuracy_allows() -> None:
    found = target({"file_size_mib": 64, "accuracy_drop_points": 2})
    assert found.smallest
    assert found.limits == {"macs": pytest.approx(0.4 * macs())}
    assert "within 2 points" in found.why
    assert "within 0.5 points" in target({"accuracy_drop_points": 2}, max_drop=0.5).why


def test_options_replace_budgets() -> None:
    given = JobOptions(board="jetson", target_size="1MiB", max_drop=3)
    limits = resolved_budgets(given, {"file_size_mib": 64.0, "accuracy_drop_points": 1.0})
    assert limits == {"file_size_mib": 1.0, "accuracy_drop_points": 3.0}
    assert Budgets(**limits).limits() == limits
