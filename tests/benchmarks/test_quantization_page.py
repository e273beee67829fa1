"""The tables of the quantization benchmark say what given rows say, and the page the committed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.pruning.page.markdown import fill
from benchmarks.pruning.tables import pictures
from benchmarks.quantization import page, tables
from benchmarks.quantization.plot import PICTURE, draw, points
from benchmarks.quantization.setting import FOLDER

Row = dict[str, Any]
ENVIRONMENT = {
    "date": "2026-01-02", "commit": "abc1234", "processor": "x86_64", "device": "cpu",
    "threads": 1, "torch": "2.0",
}  # fmt: skip


def mode(name: str, format: str, kib: float, top1: float, ms: float, **changes: Any) -> Row:
    row: Row = {
        "network": "resnet20", "format": format, "size": 32, "seed": 0, "threads": 1,
        "images": None, "runs": 400, "mode": name, "size_bytes": kib * 1024, "top1": top1,
        "torch_top1": 0.90, "agreement": 0.99, "latency_p50_ms": ms, "latency_p90_ms": 2 * ms,
        "float_latency_p50_ms": 1.0, "peak_rss_bytes": 200 * 2**20,
        "peak_rss_no_arena_bytes": 100 * 2**20 if format == "onnx" else None,
        "environment": ENVIRONMENT,
    }  # fmt: skip
    return row | changes


ROWS = [
    mode("nncf", "onnx", 310, 0.899, 0.5),
    mode("int8", "onnx", 290, 0.8985, 0.4),
    mode("int8", "onnx", 290, 0.8995, 0.5, seed=1),
    mode("float32", "onnx", 1000, 0.90, 1.0),
    mode("onnxruntime-default", "onnx", 300, 0.88, 1.25),
    mode("int8", "tflite", 300, 0.897, 0.25),
    mode("int8", "onnx", 290, None, 4.0, size=224, latency_p90_ms=5.0, float_latency_p50_ms=10.0),  # type: ignore[arg-type]
]


def cells(text: str) -> list[list[str]]:
    """The rows of a text's tables, without their headers."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    found = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [line for line in found if line[0] not in ("format", "network")]


def test_modes_stand_in_order_with_ratios_of_their_own_run() -> None:
    found = cells(tables.mode_tables(ROWS))
    assert [line[:2] for line in found] == [
        ["ONNX", "`float32`"],
        ["ONNX", "`int8`"],
        ["ONNX", "onnxruntime's default"],
        ["ONNX", "NNCF"],
        ["TFLite", "`int8`"],
    ]
    int8 = found[1]
    assert int8[3:5] == ["89.90 [89.85, 89.95]", "0.10 [0.05, 0.15]"]
    assert int8[8] == "2.25 [2.00, 2.50]"
    assert (int8[9], found[4][9]) == ("100.0 [100.0, 100.0]", "200.0")


def test_the_best_other_tool_is_chosen_figure_by_figure() -> None:
    (line,) = cells(tables.peer_table(ROWS))
    assert line[:2] == ["resnet20", "ONNX"]
    assert line[3] == "300.0 (onnxruntime's default)"
    assert line[5] == "89.90 (NNCF)"
    assert line[7] == "2.00 (NNCF)"


def test_other_sizes_stand_by_themselves() -> None:
    (line,) = cells(tables.large_table(ROWS))
    assert line == ["resnet20", "224", "ONNX", "`int8`", "4.00", "5.00", "2.50"]


def bits(precision: str, rounded: float, trained: float, seed: int = 0) -> Row:
    return {
        "network": "resnet20", "precision": precision, "epochs": 5, "rate": 0.01, "seed": seed,
        "images": None, "test_float": 0.90, "test_rounded": rounded, "test_trained": trained,
        "validation_trained": trained, "environment": ENVIRONMENT,
    }  # fmt: skip


def test_what_training_recovers_is_a_share_of_the_loss() -> None:
    found = cells(
        tables.bits_table(
            [
                bits("int4-weights", 0.80, 0.88),
                bits("int4-weights", 0.80, 0.86, seed=1),
                bits("float32", 0.90, 0.91),
            ]
        )
    )
    assert found[0][5:10] == [
        "90.00 [90.00, 90.00]", "80.00 [80.00, 80.00]", "87.00 [86.00, 88.00]",
        "10.00 [10.00, 10.00]", "70",
    ]  # fmt: skip
    assert found[1][1] == "no rounding" and found[1][9] == ""


def candidate(assumed: str, precision: str, kib: float, validation: float, test: float) -> Row:
    return {
        "network": "resnet20", "share": 0.25, "assumed": assumed, "precision": precision, "seed": 0,
        "images": None, "budget_bytes": 64 * 1024, "weight_bytes": kib * 1024, "parameters": 1000,
        "validation_pruned": 0.9, "validation_rounded": 0.9, "validation_trained": validation,
        "test_trained": test, "search_epochs": 2, "finetune_epochs": 4, "epochs": 3,
        "environment": ENVIRONMENT,
    }  # fmt: skip


CANDIDATES = [
    candidate("int8", "int8", 64, 0.85, 0.84),
    candidate("int8", "int4-weights", 33, 0.80, 0.86),
    candidate("int8", "int2-weights", 17, 0.40, 0.41),
    candidate("int4-weights", "int4-weights", 63, 0.87, 0.855),
    candidate("int2-weights", "int2-weights", 65, 0.99, 0.99),  # above the budget
]


def test_ways_choose_on_validation_images_within_the_budget() -> None:
    (line,) = cells(tables.joint_table(CANDIDATES))
    assert line[4:] == ["`int8`", "84.00", "`int4-weights`", "85.50", "+1.50"]
    assert len(cells(tables.candidate_table(CANDIDATES))) == 5
    assert tables.joint_table(CANDIDATES[:4]) == "", "a choice among some would look like one"
    with pytest.raises(ValueError, match="resnet20 0.25: runs with epochs 3 and 9"):
        tables.joint_table([*CANDIDATES, CANDIDATES[0] | {"epochs": 9}])


def test_trials_are_not_shown(tmp_path: Path) -> None:
    from benchmarks.pruning import results

    results.append(tmp_path / "bits.jsonl", bits("int8", 0.8, 0.9) | {"images": 64})
    assert page.sections(tmp_path)["bits"] == page.MISSING
    results.append(tmp_path / "bits.jsonl", bits("int8", 0.8, 0.9))
    made = page.sections(tmp_path)
    assert made["bits"].startswith("From [quantization/bits.jsonl]")
    assert len(cells(made["bits"])) == 1 and made["modes"] == page.MISSING


def test_the_picture_shows_means_of_the_trained_size(tmp_path: Path) -> None:
    shown = points(ROWS)
    assert len(shown) == 5
    (ours,) = [p for p in shown if (p.format, p.mode) == ("onnx", "int8")]
    assert (ours.size_kib, ours.top1) == (290, pytest.approx(89.90))
    draw(shown, tmp_path)
    assert (tmp_path / f"{PICTURE}.png").stat().st_size > 1000


def test_the_page_shows_the_committed_rows() -> None:
    """Mended by `python -m benchmarks.quantization.page`, never by hand."""
    text = page.PAGE.read_text(encoding="utf-8")
    assert fill(text, page.sections(FOLDER)) == text
    assert all((page.PAGE.parent / f"images/{name}.png").is_file() for name in pictures(text))
