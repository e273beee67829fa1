"""Reports with made-up figures, as the job, the fleet and the bench write them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

MIB = 2**20
HOST = {
    "arch": "x86_64",
    "isa": ["avx2", "avx512_vnni", "vnni"],
    "cores": 2,
    "model": "Test CPU",
    "system": "Linux",
    "python": "3.11.7",
}
BUDGETS: Mapping[str, tuple[float, str]] = {
    "file_size_mib": (2.0, "MiB"),
    "weights_mib": (1.0, "MiB"),
    "activation_memory_mib": (0.5, "MiB"),
    "peak_rss_mib": (100.0, "MiB"),
    "latency_p90_ms": (5.0, "ms"),
    "accuracy_drop_points": (1.0, "points"),
}
ONNX, TFLITE = "slim.int8.onnx", "slim.int8.tflite"


def artifact(name: str = ONNX, **changes: Any) -> dict[str, Any]:
    """A shipped file: half of every limit of BUDGETS, measured on a host of the board's kind."""
    stage, precision, format_ = name.split(".")
    return {
        "name": name,
        "stage": stage,
        "path": f"bundle/{name}",
        "format": format_,
        "precision": precision,
        "size_bytes": MIB,
        "sha256": f"sha of {name}",
        "weight_bytes": {"int8": MIB // 2},
        "activation_bytes": MIB // 4,
        "threads": 1,
        "measured_on": "host",
        "host_matches_board": True,
        "top1": 0.895,
        "eval_seconds": 2.0,
        "latency_ms": {"p50": 2.0, "p90": 2.5, "p99": 3.0},
        "latency_runs": 100,
        "peak_rss_bytes": 50 * MIB,
        "profile_status": "of a later version",
        **changes,
    }


def job_report(*artifacts: dict[str, Any], board: str = "x86-64", **changes: Any) -> dict[str, Any]:
    """What of report.json counts for a gate; checks of every budget, as the job left them."""
    shipped = artifacts or (artifact(),)
    return {
        "schema_version": 1,
        "board": board,
        "environment": {"host": HOST},
        "stages": {"baseline": {"top1": 0.90}},
        "artifacts": [*shipped, artifact(ONNX) | {"path": f"reference/{ONNX}", "size_bytes": 1}],
        "checks": [
            {
                "file": item["name"],
                "budget": budget,
                "value": None,
                "limit": limit,
                "unit": unit,
                "status": "pass",
                "note": "",
            }
            for item in shipped
            for budget, (limit, unit) in BUDGETS.items()
        ],
        "timings_seconds": {"baseline": 30.0, "bench": 12.0},
        **changes,
    }


def bench_report(*artifacts: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """What `runtime-bench --json` writes for the same files."""
    job = job_report(*artifacts)
    drop = {"value": 0.5}
    return {
        "host": HOST,
        "measurements": [
            {**item, "path": item["name"], "folder": "bundle"}
            for item in artifacts or (artifact(),)
        ],
        "checks": [
            {**check, **(drop if check["budget"] == "accuracy_drop_points" else {})}
            for check in job["checks"]
        ],
        "verdict": "pass",
        "warnings": [],
        **changes,
    }


def device(name: str, measured_at: str, **changes: Any) -> dict[str, Any]:
    """An entry of `device_measurements`, measured on the board itself."""
    item = artifact(**{"measured_on": "board", "host_matches_board": False, **changes})
    return {"device": name, "measured_at": measured_at, **bench_report(item)}


def write(folder: Path, content: Mapping[str, Any], name: str = "report.json") -> Path:
    """Write a report into a folder, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(json.dumps(content), encoding="utf-8")
    return path
