"""The speed-up's arithmetic, and the networks that it is measured on."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks import bench_speedup
from benchmarks.bench_speedup import Subject, uniformly_cut
from benchmarks.speedup_tables import WHOLE, Row, markdown, speedups, wanted
from compressor.cost import NetworkCosts, as_tensor
from compressor.decore.projection import class_step
from compressor.errors import InputError
from compressor.models import build_model
from compressor.saved import save_model
from runtime_bench import Burst


def macs_by_hooks(model: nn.Module) -> int:
    """Multiply-accumulates counted from the shapes that really go through."""
    found = 0

    def count(module: nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        nonlocal found
        found += output.numel() * module.weight[0].numel()

    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(count)
    model(torch.zeros(1, 3, 32, 32))
    return found


@pytest.mark.parametrize("factor", [2.0, 4.0])
@pytest.mark.parametrize("step", [4, 8])
def test_a_uniform_cut_reaches_its_factor_within_a_step(factor: float, step: int) -> None:
    whole = Subject.of(WHOLE, build_model("resnet20", 10))
    cut = Subject.of("cut", uniformly_cut(whole, factor, step))
    assert cut.macs == macs_by_hooks(cut.model)
    limit = macs_by_hooks(whole.model) / factor
    assert cut.macs <= limit
    # A step wider in any one group would add at most this share of the group's layers.
    costs, dearest = NetworkCosts(whole.graph), 0.0
    for group in whole.graph.groups:
        smaller = whole.graph.all_kept()
        smaller[group.classes[: class_step(group, step)]] = False
        dearest = max(dearest, whole.macs - float(costs.macs(as_tensor(smaller))))
    assert cut.macs > limit - dearest


def test_a_uniform_cut_keeps_about_the_same_share_of_every_layer() -> None:
    whole = Subject.of(WHOLE, build_model("resnet20", 10))
    cut = Subject.of("cut", uniformly_cut(whole, 4.0, 8))
    shares = [cut.widths[name] / width for name, width in whole.widths.items() if width > 10]
    assert max(shares) - min(shares) <= 0.25 + 1e-9  # at least four steps in every group
    assert 0.4 <= sum(shares) / len(shares) <= 0.6


def test_speedups_are_taken_round_by_round() -> None:
    """The machine is three times slower in every second round; the ratio stays."""
    slow = [Burst(ms, ms) for ms in (4.0, 12.0, 4.0, 12.0)]
    fast = [Burst(ms, ms) for ms in (2.0, 6.0, 2.0, 6.0)]
    assert speedups(slow, fast) == pytest.approx((2.0, 2.0, 2.0))
    low, middle, high = speedups(slow, [Burst(ms, ms) for ms in (4.0, 6.0, 1.0, 4.0)])
    assert low < middle < high
    assert middle == pytest.approx(2.5)  # of 1, 2, 3, 4


def test_goals_hold_near_their_factors() -> None:
    assert wanted("tflite", "int8", 2.05) == 0.9
    assert wanted("tflite", "int8", 4.2) == 0.75
    assert wanted("onnx", "int8", 3.0) is None
    assert wanted("onnx", "float32", 1.0) is None


def test_folders_of_another_architecture_are_refused(tmp_path: Path) -> None:
    save_model(build_model("resnet32", 10), "resnet32", 10, tmp_path / "slim")
    words = ["--network", "resnet20", "--network-folder", str(tmp_path / "slim")]
    with pytest.raises(InputError, match="holds a resnet32, --network is resnet20"):
        bench_speedup.chosen(bench_speedup._options(words))


def test_equal_cuts_are_timed_once() -> None:
    options = bench_speedup._options(["--network", "resnet20", "--factors", "4", "4"])
    subjects = bench_speedup.chosen(options)
    assert len({tuple(subject.widths.values()) for subject in subjects}) == len(subjects)
    assert subjects[0].name == WHOLE


def test_tables_show_the_fraction_and_the_parts() -> None:
    whole = Row(WHOLE, 1.0, "onnx", "int8", 2**20, 2.0, 2.1, 1.0, (1.0, 1.0), 1.0, None)
    half = Row("half", 2.0, "onnx", "int8", 2**19, 1.25, 1.3, 1.6, (1.5, 1.7), 0.8, 0.8)
    text = markdown(
        {
            "facts": {
                "network": "resnet18",
                "command": "python",
                "machine": "a machine",
                "threads": 1,
                "runtimes": ["onnxruntime"],
                "load_average": 0.1,
                "date": "2026-01-01",
            },
            "rows": [vars(whole), vars(half)],
            "part_macs": {WHOLE: {"conv1": 4.0, "layer1": 10.0}, "half": {"conv1": 2.0}},
            "part_milliseconds": {
                "onnx int8": {
                    WHOLE: {"conv1": 0.4, "layer1": 1.0, "between layers": 0.1},
                    "half": {"conv1": 0.25, "between layers": 0.05},
                }
            },
        }
    )
    assert (
        "| half | onnx | int8 | 0.50 | 1.250 | 1.300 | 1.60 | 1.50 - 1.70 | 1/2.00 | 0.80 | 0.8 |"
        in text
    )
    assert "| half | 0.2500 (1.60 of 2.00) | gone | 0.0500 (2.00) | 0.9500 |" in text
