"""Small bundles, and a device that is a folder of this machine."""

from __future__ import annotations

import hashlib
import json
import zipapp
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

FAKE_SSH = """#!/bin/sh
# The last argument is what the device's login shell is given.
for command; do :; done
exec sh -c "$command"
"""

# Stands in for the bench: the answers of a device are chosen by the file "answer" in the bundle.
STAND_IN = """
import hashlib, json, os, sys
answer = open("answer").read().strip() if os.path.exists("answer") else "measured"
if answer == "broken":
    sys.exit("bench: the runtime crashed")
measured = answer != "unmeasured"
content = open("slim.int8.onnx", "rb").read()
file = {
    "name": "slim.int8.onnx", "path": "slim.int8.onnx", "stage": "slim", "format": "onnx",
    "precision": "int8", "size_bytes": len(content), "sha256": hashlib.sha256(content).hexdigest(),
    "weight_bytes": None, "activation_bytes": None, "threads": 1, "host_matches_board": True,
    "runtime": "onnxruntime 1.0" if measured else "",
    "note": "" if measured else "no onnxruntime here",
    "latency_ms": {"p50": 1.0, "p90": 2.0, "p99": 3.0} if measured else None,
    "measured_on": "board" if os.environ["COMPRESS_EXPORT_BOARD"] == "jetson" else "host",
}
if answer == "of another file":
    file["sha256"] = "0" * 64
status = {"measured": "pass", "unmeasured": "unverified"}.get(answer, "pass")
with open(sys.argv[sys.argv.index("--json") + 1], "w") as figures:
    host = {"arch": "aarch64", "arguments": sys.argv[1:]}
    content = {"host": host, "measurements": [file], "checks": [{"status": status}],
               "verdict": status, "warnings": []}
    json.dump(content, figures)
sys.exit(0 if measured else 4)
"""

MANIFEST = {
    "schema_version": 1,
    "board": {"id": "jetson", "kind": "linux", "arch": "aarch64", "isa": [], "cores": 4},
    "budgets": {},
    "model": "tiny",
    "classes": ["a", "b"],
    "input": {"channels": 3, "height": 8, "width": 8},
    "preprocessing": {"mean": [0.5], "std": [0.5], "scale": 1.0, "channel_order": "RGB"},
    "files": [],
}


_TENSOR = {"name": "x", "shape": [-1, 3, 8, 8], "dtype": "float32"}
FILE = {
    "name": "slim.int8.onnx", "path": "slim.int8.onnx", "stage": "slim", "format": "onnx",
    "precision": "int8", "input": _TENSOR, "output": _TENSOR,
}  # fmt: skip


def make_bundle(
    folder: Path,
    content: bytes = b"weights",
    answer: str = "measured",
    budgets: Mapping[str, float] = MappingProxyType({}),
) -> Path:
    """Write a bundle with its sums; returns `folder`."""
    (folder / "more").mkdir(parents=True)
    entry = FILE | {"size_bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    manifest = {**MANIFEST, "budgets": dict(budgets), "files": [entry]}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "slim.int8.onnx").write_bytes(content)
    (folder / "-odd näme 'x'.txt").write_text("a name that shells trip over")
    (folder / "more" / "empty.txt").touch()
    (folder / "answer").write_text(answer)
    program = folder.parent / "stand_in"
    program.mkdir(exist_ok=True)
    (program / "__main__.py").write_text(STAND_IN)
    zipapp.create_archive(program, folder / "bench.pyz")
    return write_sums(folder)


def write_sums(folder: Path) -> Path:
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != "SHA256SUMS")
    (folder / "SHA256SUMS").write_text(
        "".join(
            f"{hashlib.sha256(p.read_bytes()).hexdigest()}  {p.relative_to(folder).as_posix()}\n"
            for p in files
        )
    )
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder, by its relative path."""
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()
    }


def fake_ssh(folder: Path) -> Path:
    """Write a program `ssh` that runs its command here; returns its folder, for PATH."""
    folder.mkdir()
    (folder / "ssh").write_text(FAKE_SSH)
    (folder / "ssh").chmod(0o755)
    return folder
