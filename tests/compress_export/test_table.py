"""The final table, on the terminal and in report.md."""

import copy
import io
from typing import Any

from rich.console import Console

from compress_export.table import check_line, print_report, report_markdown, rows

MIB = 2**20


def entry(
    stage: str, file_format: str, precision: str, size_bytes: int, p90: float
) -> dict[str, Any]:
    name = f"{stage}.{precision}.{file_format}"
    shipped = stage == "slim" and precision in ("int8", "float16")
    folder = "bundle" if shipped else "reference"
    return {
        "name": name,
        "stage": stage,
        "path": f"{folder}/{name}",
        "format": file_format,
        "precision": precision,
        "size_bytes": size_bytes,
        "top1": 0.9123,
        "precision_macro": 0.9,
        "recall_macro": 0.91,
        "latency_ms": {"p50": p90 / 2, "p90": p90, "p99": p90 * 2},
        "measured_on": "host",
    }


REPORT: dict[str, Any] = {
    "schema_version": 1,
    "board": "jetson",
    "model": "resnet20",
    "stages": {
        "baseline": {"params": 269_722, "macs": 40_551_808, "size_bytes": MIB, "top1": 0.93},
        "slim": {"params": 134_861, "macs": 20_275_904, "size_bytes": MIB // 2, "top1": 0.92},
    },
    "artifacts": [
        entry("slim", "tflite", "int8", MIB // 10, 0.25),
        entry("slim", "onnx", "int8", MIB // 8, 0.5),
        entry("slim", "onnx", "float32", MIB // 2, 1.0),
        entry("baseline", "onnx", "float32", MIB, 2.0),
        entry("baseline", "onnx", "int8", MIB // 4, 1.5),
    ],
    "checks": [
        {
            "file": "slim.int8.onnx",
            "budget": "file_size_mib",
            "value": 0.125,
            "limit": 0.1,
            "unit": "MiB",
            "status": "fail",
            "note": "",
        },
        {
            "file": "slim.int8.onnx",
            "budget": "latency_p90_ms",
            "value": None,
            "limit": 5.0,
            "unit": "ms",
            "status": "unverified",
            "note": "not measured on the board",
        },
    ],
    "warnings": ["3 images were broken [skipped]"],
    "timings_seconds": {"search": 12.345},
    "verdict": "fail",
}


def shown(report: dict[str, Any], width: int = 80) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    print_report(report, console)
    return console.export_text()


def test_rows_in_order_with_figures_of_their_own_file() -> None:
    found = rows(REPORT)
    assert [row.name for row in found] == ["baseline", "slim", "ONNX INT8", "TFLite INT8"]
    assert [row.latency_p90_ms for row in found] == [2.0, 1.0, 0.5, 0.25]
    assert [row.size_bytes for row in found] == [MIB, MIB // 2, MIB // 8, MIB // 10]
    assert [row.params for row in found] == [269_722, 134_861, 134_861, 134_861]
    assert [row.score for row in found] == [0.93, 0.92, 0.9123, 0.9123]
    assert found[0].recall_macro == 0.91


def test_a_board_without_int8_shows_fp16() -> None:
    report = copy.deepcopy(REPORT)
    report["artifacts"] = [entry("slim", "onnx", "float16", MIB // 4, 0.7)]
    assert [row.name for row in rows(report)] == ["baseline", "slim", "ONNX FP16"]
    assert rows(report)[0].latency_p90_ms is None


def test_a_job_that_only_quantized_shows_the_baselines_files() -> None:
    report = copy.deepcopy(REPORT)
    del report["stages"]["slim"]
    report["artifacts"] = [e for e in report["artifacts"] if e["stage"] == "baseline"]
    report["artifacts"][-1]["path"] = "bundle/baseline.int8.onnx"
    found = rows(report)
    assert [row.name for row in found] == ["baseline", "ONNX INT8"]
    assert found[1].params == 269_722


def test_other_precisions_of_the_same_network_stand_below_the_boards_files() -> None:
    report = copy.deepcopy(REPORT)
    report["artifacts"].insert(0, entry("slim", "onnx", "int8-dynamic", MIB // 7, 0.7))
    names = [row.name for row in rows(report)]
    assert names == ["baseline", "slim", "ONNX INT8", "TFLite INT8", "ONNX INT8 dynamic"]


def test_markdown_table_has_ratios_to_the_baseline() -> None:
    lines = report_markdown(REPORT).splitlines()
    assert lines[0] == "# resnet20 for jetson: fail"
    assert "| baseline | 1.00 | 270k | 40.6M | 93.00 | 90.00 | 91.00 | 2.00 |" in lines
    assert (
        "| ONNX INT8 | 0.125 (8.0x) | 135k (2.0x) | 20.3M (2.0x) | 91.23 | 90.00 | 91.00 "
        "| 0.500 (4.0x) |" in lines
    )
    assert "- 3 images were broken [skipped]" in lines
    assert "| search | 12.3 |" in lines


def test_what_was_not_measured_is_a_dash() -> None:
    report = copy.deepcopy(REPORT)
    for artifact in report["artifacts"]:
        artifact.update(top1=None, latency_ms=None)
    line = next(ln for ln in report_markdown(report).splitlines() if ln.startswith("| TFLite"))
    assert line.endswith("| - | 90.00 | 91.00 | - |")


def test_a_missed_budget_says_by_how_much() -> None:
    failed, unverified = REPORT["checks"]
    assert check_line(failed) == (
        "slim.int8.onnx file_size_mib 0.125 MiB, limit 0.1 MiB, over by 0.025 MiB"
    )
    assert check_line(unverified) == (
        "slim.int8.onnx latency_p90_ms not measured, limit 5 ms (not measured on the board)"
    )
    assert "headroom 0.9 MiB" in check_line({**failed, "limit": 1.025, "status": "pass"})
    elsewhere = check_line({**failed, "status": "unverified"})
    assert "over by 0.025 MiB" in elsewhere and "headroom" not in elsewhere


def test_the_terminal_shows_the_same_and_fits_in_80_columns() -> None:
    text = shown(REPORT)
    table, _, checks = text.partition("1.0x is the baseline")
    assert max(len(line) for line in table.splitlines()) <= 80
    assert len([line for line in checks.splitlines() if "slim.int8.onnx" in line]) == 2
    for part in ("TFLite INT8", "8.0x", "40.6M", "91.23", "over by 0.025 MiB", "verdict: fail"):
        assert part in text
    assert "3 images were broken [skipped]" in text
    assert "measured on the host" in text


def test_the_smallest_report_can_be_shown() -> None:
    text = shown({"board": "jetson", "model": "resnet20", "verdict": "pass"})
    assert "verdict: pass" in text


def test_the_arena_of_a_microcontrollers_file_is_shown() -> None:
    report = copy.deepcopy(REPORT)
    arena = {
        "head_bytes": 2000,
        "tail_bytes": 1000,
        "total_bytes": 3000,
        "smallest_bytes": 3088,
        "operators": ["CONV_2D", "ADD"],
        "runtime": "tflite-micro 0.dev1",
    }
    for artifact in report["artifacts"]:
        artifact["arena"] = arena if artifact["name"].endswith("int8.tflite") else None
    line = (
        "slim.int8.tflite: smallest 3088, after a run 3000 (head 2000, tail 1000) bytes in "
        "tflite-micro 0.dev1; operators CONV_2D, ADD"
    )
    assert f"## Arena\n\n- {line}\n" in report_markdown(report)
    assert f"arena      {line}\n" in shown(report)
    assert "Arena" not in report_markdown(REPORT)
