"""--precision joint: what is pruned for, which network is taken, and a job that takes one."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tiny_jobs import NETWORK, QUICK, Ended, run_here

from boards import load_board
from boards.parts import FILE_PRECISIONS, Runtime
from compress_export.errors import UsageError
from compress_export.job_file import resolve_options
from compress_export.joint import best_way, precision_groups, remarks
from compress_export.latency_target import no_tables
from compress_export.pipeline import train_quantized
from compress_export.precision_choice import Candidate, possible
from compress_export.targets import BYTES_PER_VALUE, channel_step
from compressor.saved import load_model

BUDGET_BYTES = 25 * 1024


@pytest.mark.parametrize("formats", [("onnx",), ("tflite",), ("onnx", "tflite")])
def test_budgets_of_bytes_group_precisions_by_bytes(formats: tuple[str, ...]) -> None:
    board = load_board("x86-64")
    groups = precision_groups(board, formats, {"weight_bytes"})
    assert groups[0][0] == "int8"
    for group in groups:
        assert len({(BYTES_PER_VALUE[p][0], channel_step(board, p)) for p in group}) == 1
    heads = [(BYTES_PER_VALUE[g[0]][0], channel_step(board, g[0])) for g in groups]
    assert len(set(heads)) == len(heads)
    found = {name for group in groups for name in group}
    assert not {"float32", "float16"} & found
    assert ("int2-weights" in found) == (formats == ("tflite",))  # ONNX has no 2 bits


def test_a_latency_leaves_what_has_tables() -> None:
    groups = precision_groups(load_board("x86-64"), ("tflite",), {"latency_ms", "weight_bytes"})
    timed = [name for name in FILE_PRECISIONS if no_tables(name) is None]
    assert sorted(groups) == sorted((name,) for name in timed)
    assert groups[0] == ("int8",)


def test_a_microcontroller_has_nothing_to_choose() -> None:
    assert precision_groups(load_board("stm32h747"), ("tflite",), {"weight_bytes"}) == [("int8",)]


def test_precisions_that_one_format_lacks_are_named_with_the_way_out() -> None:
    board = load_board("x86-64")
    lines = remarks(board, ("onnx", "tflite"), {"weight_bytes"})
    assert len(lines) == 3
    four, two, wide = lines
    assert re.fullmatch(
        r"int4-weights is left out: .* opset 21, .* reads 1\d .* raise min_version\); "
        "--formats tflite can have it",
        four,
    )
    assert two.startswith("int2-weights is left out: ") and wide.startswith("int8-int16 is left")
    assert remarks(board, ("tflite",), {"weight_bytes"}) == []
    newer = [Runtime(name="onnxruntime", min_version="1.18"), *board.runtimes[1:]]
    board = board.model_copy(update={"runtimes": tuple(newer)})
    (two,) = remarks(board, ("onnx", "tflite"), {"weight_bytes"})
    assert two.startswith("int2-weights is left out: ")
    groups = precision_groups(board, ("onnx", "tflite"), {"weight_bytes"})
    assert "int4-weights" in {name for group in groups for name in group}


@pytest.mark.parametrize("board", ["jetson", "coral", "esp32s3"])
def test_a_single_network_is_said_to_leave_the_choice_of_auto(board: str) -> None:
    found = load_board(board)
    assert precision_groups(found, found.formats, {"weight_bytes"}) == [("int8",)]
    *left_out, last = remarks(found, found.formats, {"weight_bytes"})
    assert last == "int8 alone is pruned for: the choice is that of --precision auto"
    assert len(left_out) == (5 if board == "jetson" else 0)  # TensorRT takes int8 alone


def way(precision: str) -> Any:
    return SimpleNamespace(branch=precision, exports=SimpleNamespace(precision=precision))


def test_only_networks_for_rounded_files_train_with_rounding(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trained: list[str] = []
    monkeypatch.setattr(
        "compress_export.quantization_training.train_for_files",
        lambda job: trained.append(job.exports.precision),
    )
    ways = [way(name) for name in ("int8", "float16", "float32", "int4-weights")]
    job: Any = SimpleNamespace(ways=ways, pruned=None)
    train_quantized(job)
    assert trained == ["int8", "int4-weights"]


def test_budgets_then_accuracy_decide_between_networks() -> None:
    ways = [way("int8"), way("int4-weights")]
    job: Any = SimpleNamespace(ways=ways, exports=SimpleNamespace(formats=("tflite",)))
    a = Candidate("a", "tflite", "int8", 100, 1.0, True, 0.90, (), pruned_for="int8")
    b = Candidate("b", "tflite", "int4-weights", 90, 3.0, True, 0.92, (), pruned_for="int4-weights")
    assert best_way(job, [a, b]) is ways[1]
    assert best_way(job, [a, replace(b, missed=("latency_p90_ms",))]) is ways[0]
    assert best_way(job, [a, replace(b, validation_score=0.90)]) is ways[1]  # the smaller
    assert best_way(job, [a, replace(b, validation_score=None)]) is ways[0]
    assert best_way(job, [a]) is ways[0]  # no file of the other could be made


@pytest.fixture(scope="module")
def chosen(tmp_path_factory: pytest.TempPathFactory, trained: Path) -> Ended:
    """A budget that no precision meets unpruned. Tests only read it."""
    out = tmp_path_factory.mktemp("joint") / "out"
    words = (
        f"--board x86-64 --formats tflite --target-size {BUDGET_BYTES}B --max-drop 60 "
        "--first-aid none --precision joint"
    )
    return run_here(out, *NETWORK, *QUICK, "--weights", trained, *words.split())


def test_every_precision_is_pruned_for(chosen: Ended) -> None:
    assert chosen.code == 0, chosen.complained
    found = chosen.report["precision_choice"]
    groups = precision_groups(load_board("x86-64"), ("tflite",), {"weight_bytes"})
    assert {c["pruned_for"] for c in found} == {group[0] for group in groups}
    assert {c["precision"] for c in found} == {name for group in groups for name in group}
    for entry in found:
        assert any({entry["pruned_for"], entry["precision"]} <= set(group) for group in groups)
        if entry["pruned_for"] == entry["precision"]:
            assert 0.5 * BUDGET_BYTES < entry["size_bytes"] <= BUDGET_BYTES


def test_the_network_of_the_shipped_file_is_the_one_that_is_kept(chosen: Ended) -> None:
    report = chosen.report
    (shipped,) = [c for c in report["precision_choice"] if c["shipped"]]
    (file,) = [a for a in report["artifacts"] if a["path"].startswith("bundle/")]
    assert file["path"] == f"bundle/{shipped['path']}"
    slim = load_model(chosen.out / "torch" / "slim")
    assert report["stages"]["slim"]["params"] == sum(p.numel() for p in slim.parameters())
    kept = load_model(chosen.run / shipped["pruned_for"] / "rung-1" / "network")
    weights = {name: list(t.shape) for name, t in kept.state_dict().items()}
    assert weights == {name: list(t.shape) for name, t in slim.state_dict().items()}
    # files of the other networks are gone
    slim_files = [a for a in report["artifacts"] if a["stage"] == "slim"]
    of_network = {
        c["path"] for c in report["precision_choice"] if c["pruned_for"] == shipped["pruned_for"]
    }
    assert {a["name"] for a in slim_files} == of_network | {"slim.float32.tflite"}
    present = {p.name for p in chosen.out.glob("*/slim.*.tflite")}
    assert present == {a["name"] for a in slim_files}


def test_measuring_again_keeps_the_choice(chosen: Ended, tmp_path: Path) -> None:
    before = chosen.report
    words = "--board x86-64 --stages bench --latency-runs 5 --max-drop 60"
    shutil.copytree(chosen.out, tmp_path / "out")
    again = run_here(tmp_path / "out", *words.split())
    assert again.code == chosen.code, again.complained
    assert again.report["precision_choice"] == before["precision_choice"]
    assert again.report["stages"]["slim"] == before["stages"]["slim"]


def test_without_a_budget_that_binds_there_is_one_network(tmp_path: Path, trained: Path) -> None:
    words = "--board jetson --formats onnx --target-macs 0.5 --first-aid none --precision joint"
    ended = run_here(tmp_path / "out", *NETWORK, *QUICK, "--weights", trained, *words.split())
    assert ended.complained == ""
    assert "joint: no budget of bytes or latency binds" in ended.said
    assert {c["pruned_for"] for c in ended.report["precision_choice"]} == {"int8"}


def test_a_single_network_is_chosen_from_as_by_auto(tmp_path: Path, trained: Path) -> None:
    words = f"--board jetson --target-size {BUDGET_BYTES}B --max-drop 60 --first-aid none"
    line = (*NETWORK, *QUICK, "--weights", trained, *words.split(), "--precision", "joint")
    planned = run_here(tmp_path / "plan", *line, "--dry-run")
    assert planned.code == 0, planned.complained
    assert planned.said.count("is left out: ") == 5
    assert "joint:    int8 alone is pruned for" in planned.said and "times: for" not in planned.said
    ended = run_here(tmp_path / "out", *line)
    assert ended.complained == ""
    board = load_board("jetson")
    found = ended.report["precision_choice"]
    assert {c["pruned_for"] for c in found} == {"int8"}
    for format in board.formats:
        precisions = {c["precision"] for c in found if c["format"] == format}
        assert precisions == set(possible(board, format))
    warnings = [line for line in ended.report["warnings"] if line.startswith("joint: ")]
    wanted = remarks(board, board.formats, {"weight_bytes"})
    assert warnings == [f"joint: {line}" for line in wanted]
    said = " ".join(ended.said.split())
    assert all(line in said for line in warnings)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"precision": "joint,int8"}, "joint tries every precision"),
        ({"precision": "joint", "stages": "quantize,bench"}, "joint prunes and then quantizes"),
        ({"precision": "joint", "codebook": "16"}, "--codebook 16 exclude each other"),
    ],
)
def test_mistakes(words: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        resolve_options({"board": "x86-64", **words})
