"""Run folders for the page, made of plain data: no training, no model files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

DIGITS = tuple("0123456789")
FILES = (
    ("slim.int8.onnx", "bundle", 0.90),
    ("slim.int8.tflite", "bundle", 0.91),
    ("baseline.float32.onnx", "reference", 0.95),
    ("baseline.int8.onnx", "reference", 0.94),
)


def artifact(name: str, folder: str, top1: float | None) -> dict[str, Any]:
    stage, precision, file_format = name.split(".")
    size = {"int8": 90_000, "float32": 350_000}[precision] * (3 if stage == "baseline" else 1)
    return {
        "name": name, "stage": stage, "path": f"{folder}/{name}", "format": file_format,
        "precision": precision, "size_bytes": size, "activation_bytes": size // 4,
        "top1": top1, "score": None, "agreement": top1, "peak_rss_bytes": 50 * 2**20,
        "latency_ms": {"p50": size / 1e6, "p90": size / 8e5, "p99": size / 6e5},
        "measured_on": "host", "runtime": "onnxruntime 1.20",
    }  # fmt: skip


def check(file: str, budget: str, value: float | None, limit: float, unit: str) -> dict[str, Any]:
    status = "unverified" if value is None else "pass" if value <= limit else "fail"
    names = ("file", "budget", "value", "limit", "unit", "status", "note")
    return dict(zip(names, (file, budget, value, limit, unit, status, ""), strict=True))


def plain_report() -> dict[str, Any]:
    """A report whose accuracy drop fails and whose memory nobody measured."""
    shipped = [name for name, folder, _ in FILES if folder == "bundle"]
    checks = [check(name, "file_size_mib", 0.086, 8.0, "MiB") for name in shipped]
    checks += [check(name, "accuracy_drop_points", 5.0, 1.0, "points") for name in shipped]
    checks += [check(name, "peak_rss_mib", None, 512.0, "MiB") for name in shipped]
    return {
        "schema_version": 1, "board": "jetson", "model": "resnet20", "data": "digits",
        "metric": "top-1", "target": "0.4 of the MACs", "seed": 0,
        "stages": {
            "baseline": {
                "params": 269722, "macs": 40551808, "top1": 0.95, "validation_top1": 0.96,
                "score": None, "validation_score": None,
            },
            "slim": {
                "params": 90000, "macs": 16000000, "top1": 0.91, "validation_top1": 0.93,
                "score": None, "validation_score": None,
            },
        },
        "artifacts": [artifact(*file) for file in FILES],
        "checks": checks, "violations": [], "verdict": "fail",
        "warnings": ["few test images"], "command": ["compress-export", "--board", "my board.yaml"],
        "options": {"method": "decore", "stages": ["prune", "quantize"], "threads": None},
        "environment": {
            "python": "3.11.7", "system": "Linux", "libraries": {"torch": "2.14.1"},
            "host": {"arch": "x86_64", "cores": 2},
        },
        "timings_seconds": {"search": 120.0, "bench": 4.0},
        "limits": [
            {"cost": "macs", "value": 1.6e7, "limit": 1.62e7, "share": 0.988, "binds": True}
        ],
    }  # fmt: skip


def write_evidence(
    folder: Path, classes: tuple[str, ...], side: int = 8, operators: int = 40
) -> None:
    """Write every kind of evidence for the files of `plain_report`."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    moments = [0.25, 0.5, 0.75, 1.0]
    agents = {
        "rung": "rung-1", "progress": moments, "bands": [0.0, 0.05, 0.35, 0.65, 0.95, 1.0],
        "certainty": [[0.1 * i, 0.2, 0.5 - 0.1 * i, 0.1, 0.2] for i in range(4)],
        "groups": [
            {"name": f"layer{i}.conv1", "agents": 16, "probability": [0.9, 0.7, 0.4, 0.1 * i]}
            for i in range(6)
        ],
    }  # fmt: skip
    layers = [{"layer": f"layer{i}.conv1", "channels": 16, "kept": 4 + i} for i in range(6)]
    names = [name for name, _, _ in FILES]
    latency = {name: random.gamma(9, 0.05, 100).round(4).tolist() for name in names}
    memory = {
        name: {
            "operators": ["Conv"] * operators,
            "live_bytes": random.integers(1000, 60000, operators).tolist(),
        }
        for name in names
    }
    for name, content in (
        ("agents.json", [agents]),
        ("layers.json", layers),
        ("latency.json", latency),
        ("memory.json", memory),
    ):
        (folder / name).write_text(json.dumps(content))
    labels = np.arange(40 * len(classes)) % len(classes)
    wrong = (labels + 1) % len(classes)
    turn = np.arange(len(labels)) // len(classes)  # of each class's images, from 0 to 39
    before = np.where(turn % 20 == 0, wrong, labels)
    after = np.where((labels == 0) & (turn % 3 == 0), wrong, before)
    answers = {"torch baseline": before, "slim.int8.onnx": after}
    np.savez(folder / "answers.npz", labels=labels, **answers)
    rows = np.flatnonzero(before != after)[:12]
    images = random.integers(0, 256, (len(rows), side, side, 3), dtype=np.uint8)
    np.savez(folder / "changed.npz", rows=rows, images=images, after="slim.int8.onnx")


def write_run(
    folder: Path, classes: tuple[str, ...] = DIGITS, evidence: bool = True, **changes: Any
) -> Path:
    """Write a run folder; changes replace keys of its report."""
    (folder / "bundle").mkdir(parents=True)
    (folder / "bundle" / "manifest.json").write_text(json.dumps({"classes": list(classes)}))
    (folder / "report.json").write_text(json.dumps({**plain_report(), **changes}))
    if evidence:
        write_evidence(folder / "evidence", classes)
    return folder
