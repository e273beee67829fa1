"""The zoo: its parts on tiny networks, its limits, and its page."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.pruning import results
from benchmarks.pruning.page.markdown import fill
from benchmarks.zoo import page, run
from benchmarks.zoo.analysis import analyse, branches_emptied, exactness, half_kept
from benchmarks.zoo.child import Outcome, run_limited
from benchmarks.zoo.files import compare
from benchmarks.zoo.images import crops
from benchmarks.zoo.models import CLASSES, EDGE, TORCHVISION, ZOO, chosen
from benchmarks.zoo.peer import masked, prune_with_peer
from benchmarks.zoo.stopwatch import Stopwatch
from benchmarks.zoo.values import fit_head, randomize, settle
from compressor.errors import InputError
from compressor.verify import SlimError, mask_effect

SMALL = ("mobilenet_v2", "shufflenet_v2_x0_5", "squeezenet1_1", "mnasnet0_5", "regnet_y_400mf")


class Residual(nn.Module):
    """A branch that may go as a whole, and a stream of 8 tied channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.branch = nn.Sequential(
            nn.Conv2d(8, 6, 1), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 8, 1)
        )
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = x + self.branch(x)
        return self.head(x.mean((2, 3)))  # [N, 8, h, w] -> [N, 8]


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    model = Residual().eval()
    randomize(model, 0)
    settle(model, torch.from_numpy(crops(20, 16, 0)[0]))
    return model


def test_the_zoo_is_as_large_as_promised_and_names_are_unique():
    assert len(TORCHVISION) >= 45 and len(EDGE) >= 30
    assert len({entry.name for entry in ZOO}) == len(ZOO)
    from torchvision import models

    assert {entry.name for entry in TORCHVISION} <= set(models.list_models(module=models))


def test_every_timm_name_exists():
    timm = pytest.importorskip("timm")
    assert {entry.name.removeprefix("timm:") for entry in EDGE} <= set(timm.list_models())


def test_models_are_chosen_by_name():
    assert chosen(None) == list(ZOO)
    assert [entry.family for entry in chosen(["resnet18", "package:factory"])] == [
        "ResNet",
        "other",
    ]
    with pytest.raises(InputError, match="named twice"):
        chosen(["resnet18", "resnet18"])


def test_crops_repeat_and_their_strips_can_be_told_apart():
    images, labels = crops(40, 16, seed=3)
    assert images.shape == (40, 3, 16, 16) and images.dtype == np.float32
    assert sorted(set(labels.tolist())) == list(range(CLASSES))
    again, _ = crops(40, 16, seed=3)
    np.testing.assert_array_equal(images, again)
    flat = images.mean((2, 3))  # mean colours differ between the photographs
    first, second = flat[labels < 5].mean(0), flat[labels >= 5].mean(0)
    assert np.abs(first - second).max() > 0.3


def test_settled_layers_have_mean_0_and_variance_1(network):
    seen = {}
    for name in ("stem.1", "branch.0", "branch.3"):
        layer = network.get_submodule(name)
        layer.register_forward_hook(lambda _m, _i, out, name=name: seen.update({name: out}))
    images = torch.from_numpy(crops(20, 16, 0)[0])
    with torch.no_grad():
        network(images)
    for name in ("branch.0", "branch.3"):
        values = seen[name].movedim(1, 0).flatten(1)
        torch.testing.assert_close(values.mean(1), torch.zeros(len(values)), atol=1e-4, rtol=0)
        torch.testing.assert_close(values.std(1), torch.ones(len(values)), atol=1e-2, rtol=0)
    norm = network.stem[1]
    values = seen["stem.1"].movedim(1, 0).flatten(1)
    torch.testing.assert_close(values.mean(1), norm.bias.detach(), atol=1e-4, rtol=0)


def test_constants_become_random_and_other_weights_stay():
    model = Residual()
    kept = model.head.weight.detach().clone()
    randomize(model, 1)
    norm = model.stem[1]
    assert norm.weight.std() > 0 and norm.bias.std() > 0
    torch.testing.assert_close(model.head.weight.detach(), kept)


def test_a_fitted_head_tells_what_it_was_fitted_to(network):
    images, labels = (torch.from_numpy(part) for part in crops(40, 16, 1))
    before = (network(images).argmax(1) == labels).float().mean()
    assert fit_head(network, images, labels)
    after = (network(images).argmax(1) == labels).float().mean()
    assert after > before and after > 2 / CLASSES
    assert not fit_head(nn.Sequential(nn.Conv2d(3, CLASSES, 16), nn.Flatten()), images, labels)


def test_half_of_each_group_stays_and_slim_is_masked(network):
    graph, found = analyse(network, torch.zeros(1, 3, 16, 16))
    keep = half_kept(graph, seed=0)
    for group in graph.groups:
        assert keep[group.classes].sum() == -(-len(group.classes) // 2)
    images = torch.from_numpy(crops(2, 16, 0)[0])
    assert exactness(network, graph, keep, images) <= 1e-12
    assert mask_effect(network, graph, keep, images) > page.SMALLEST_EFFECT
    emptied = branches_emptied(graph, keep)
    assert emptied.sum() < keep.sum()
    assert exactness(network, graph, emptied, images) <= 1e-12
    # stem 8, branch 6 and 8: everything can go; half of 8, 6 and 8 does
    assert found["prunable_conv"] == 1.0
    assert found["removed_conv"] == pytest.approx(11 / 22)
    assert found["removed_all"] == pytest.approx(11 / 32, abs=1e-4)


def test_a_wrong_graph_shows_as_an_error(network):
    graph, _ = analyse(network, torch.zeros(1, 3, 16, 16))
    images = torch.from_numpy(crops(2, 16, 0)[0])
    swapped = tuple(
        replace(cut, classes=cut.classes[::-1].copy()) if cut.module == "head" else cut
        for cut in graph.slices
    )
    wrong = replace(graph, slices=swapped)
    with pytest.raises(SlimError, match="head"):
        exactness(network, wrong, half_kept(graph, 0), images)


@pytest.mark.parametrize("name", SMALL)
def test_small_networks_are_exact(name):
    from compressor.models import build_model

    torch.manual_seed(0)
    model = build_model(name, CLASSES).eval()
    randomize(model, 0)
    settle(model, torch.from_numpy(crops(16, 32, 0)[0]))
    graph, found = analyse(model, torch.zeros(1, 3, 32, 32))
    images = torch.from_numpy(crops(2, 32, 0)[0])
    keep = half_kept(graph, 0)
    assert exactness(model, graph, keep, images) <= 1e-9
    assert mask_effect(model, graph, keep, images) > page.SMALLEST_EFFECT
    # The shuffles leave ShuffleNet some channels whose ties no other channel shares.
    assert found["prunable_conv"] >= (0.85 if "shuffle" in name else 0.95)


def test_seconds_are_taken_by_the_clock_and_of_the_processor(network, monkeypatch):
    _, found = analyse(network, torch.zeros(1, 3, 16, 16))
    assert found["analysis_s"] > 0 and found["analysis_cpu_s"] > 0
    monkeypatch.setattr(time, "perf_counter", iter([100.0, 108.0]).__next__)
    monkeypatch.setattr(time, "process_time", iter([1.0, 1.5]).__next__)
    assert Stopwatch().fields("stage") == {"stage_s": 8.0, "stage_cpu_s": 0.5}


def test_the_peer_is_exact_on_a_residual_network(network):
    found = prune_with_peer(network, torch.from_numpy(crops(2, 16, 0)[0]))
    assert found["error"] <= 1e-12
    assert 0.4 < found["removed_conv"] < 0.6


def test_norms_of_the_masked_oracle_leave_masked_channels_out():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 16), nn.Flatten(), nn.LayerNorm(8), nn.Linear(8, CLASSES)
    ).eval()
    randomize(model, 0)
    found = prune_with_peer(model, torch.from_numpy(crops(2, 16, 0)[0]))
    assert found["error"] <= 1e-12 and found["removed_conv"] == 0.5


def test_the_masked_oracle_sees_a_wrong_cut():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 2, 1)).eval()
    nn.init.constant_(model[0].bias, 1.0)  # or a channel may be silent behind the ReLU
    x = torch.from_numpy(crops(2, 16, 0)[0]).double()
    whole = masked(model, {}, x)
    torch.testing.assert_close(whole, model.double()(x))
    zeroed = masked(model, {"2": np.array([1])}, x)
    with torch.no_grad():
        model[2].weight[:, 1] = 0
    torch.testing.assert_close(zeroed, model(x))
    assert not torch.allclose(zeroed, whole)


def test_comparison_ignores_what_never_changes():
    rng = np.random.default_rng(0)
    expected = rng.standard_normal((50, 4)).astype(np.float32)
    found = compare(expected + 100, expected)
    assert found == {"agreement": 1.0, "correlation": 1.0}
    noise = rng.standard_normal((50, 4)).astype(np.float32)
    assert abs(compare(expected + 100, noise + 100)["correlation"]) < 0.3


def test_a_network_that_takes_too_long_or_too_much_is_stopped():
    sleeping = [sys.executable, "-c", "print('begun', flush=True); import time; time.sleep(60)"]
    outcome = run_limited(sleeping, time_limit_s=3, memory_limit_mib=1000)
    assert outcome.lines == ("begun",) and "more than 3 s" in (outcome.failure or "")
    large = [sys.executable, "-c", "b = b'x' * 2**28; import time; time.sleep(60)"]
    outcome = run_limited(large, time_limit_s=60, memory_limit_mib=100)
    assert "more than 100 MiB" in (outcome.failure or "")
    crash = [sys.executable, "-c", "import os; os.abort()"]
    assert "SIGABRT" in (run_limited(crash, time_limit_s=60, memory_limit_mib=100).failure or "")
    assert run_limited([sys.executable, "-c", ""], time_limit_s=60, memory_limit_mib=100) == (
        Outcome((), None, pytest.approx(0, abs=2**27))
    )


def test_a_row_holds_what_came_before_the_failure_and_is_not_taken_again(tmp_path, monkeypatch):
    lines = (
        json.dumps({"fields": {"parameters": 10}}),
        json.dumps({"stage": "slim", "error": "ValueError: no"}),
    )
    taken = []

    def limited(command, **limits):
        taken.append(json.loads(command[-1])["model"])
        return Outcome(lines, None, 5)

    monkeypatch.setattr(run, "run_limited", limited)
    path = tmp_path / "zoo.jsonl"
    arguments = ["--models", "resnet18", "--results", str(path), "--size", "32"]
    assert run.main(arguments) == 0 and run.main(arguments) == 0
    assert run.main([*arguments, "--retry"]) == 0
    assert run.main([*arguments, "--peers"]) == 0
    assert taken == ["resnet18"] * 3
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["tool"] for row in rows] == [run.OURS, run.OURS, run.PEER]
    assert rows[0]["parameters"] == 10 and rows[0]["errors"] == {"slim": "ValueError: no"}


def row(model: str, **fields) -> dict:
    (entry,) = chosen([model])
    file = {
        "conversion_cpu_s": 3.0,
        "int8_bytes": 2048,
        "agreement": 0.95,
        "correlation": 0.99,
        "float_operators": {"Softmax": 2},
    }
    return {
        "model": model,
        "tool": run.OURS,
        "size": 64,
        "source": entry.source,
        "family": entry.family,
        "convolutional": entry.convolutional,
        "errors": {},
        "parameters": 1_000_000,
        "analysis_s": 5.0,
        "analysis_cpu_s": 0.5,
        "analysis_peak_bytes": 2**20,
        "effect": 0.7,
        "error_half": 1e-15,
        "error_emptied": 2e-15,
        "prunable_conv": 0.99,
        "removed_conv": 0.5,
        "removed_all": 0.4,
        "fixed": {"the network's output": {"places": 1, "first": "output"}},
        "onnx": file,
        "tflite": file,
        **fields,
    }


def test_the_page_counts_what_the_rows_say():
    rows = [
        row("resnet18"),
        row("resnet34", prunable_conv=0.5, errors={"tflite": "ExportError: a | b"}, tflite=None),
        row("mobilenet_v2", error_half=1e-3),
        row("timm:lcnet_050", analysis_cpu_s=4.0, fixed={"why": {"places": 3, "first": "norm"}}),
        {"model": "resnet18", "tool": run.PEER, "errors": {}, "error": 1e-14},
        {"model": "mobilenet_v2", "tool": run.PEER, "errors": {}, "error": 0.1},
        {"model": "timm:lcnet_050", "tool": run.PEER, "errors": {"prune": "KeyError: 1"}},
    ]
    del rows[1]["tflite"]
    found = page.parts(rows)
    counts = dict(line.strip("| ").split(" | ") for line in found["glance"].splitlines()[2:])
    assert counts["Networks of torchvision, of timm"] == "3, 1"
    assert counts["Slim equals masked (float64)"] == "3 of 4"
    assert counts["Families of convolutions with 95 % of the channels prunable"] == "2 of 3"
    assert counts["Both INT8 files made and run"] == "3 of 4"
    assert counts["Analysis within 3 processor seconds, 2048 MiB"] == "3 of 4"
    assert counts["Torch-Pruning 1.6.1: ran"] == "2 of 3"
    assert counts["Torch-Pruning 1.6.1: its pruned network is the masked one"] == "1 of 3"
    assert found["failures"].splitlines()[-1] == "| resnet34 | tflite | ExportError: a \\| b |"
    assert "`norm` and 2 more: why" in found["graph-timm"]
    assert "2 Softmax" in found["files-torchvision"]
    assert "fails: KeyError: 1" in found["peers"] and "runs, not exact" in found["peers"]


def test_a_mask_without_effect_shows_nothing():
    assert page.is_exact(row("resnet18"))
    assert not page.is_exact(row("resnet18", effect=0.0))


def test_the_newest_row_of_a_network_counts():
    rows = [row("resnet18", analysis_s=9.0), row("resnet34"), row("resnet18", analysis_s=0.1)]
    newest = page.newest_rows(rows)
    assert [(r["model"], r["analysis_s"]) for r in newest] == [("resnet18", 0.1), ("resnet34", 5.0)]


def test_the_page_is_made_from_the_results():
    text = page.PAGE.read_text(encoding="utf-8")
    rows = page.newest_rows(results.rows(page.RESULTS))
    assert fill(text, page.parts(rows)) == text
