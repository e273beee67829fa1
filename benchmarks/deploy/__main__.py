"""Measure deploy on loopback, write results/deploy.json.

    python -m benchmarks.deploy --run DIR [--python PY] [--numpy-python PY] [--bare-python PY]

DIR is the output folder of a job. The server is a real sshd on a port of its own; as root, it is
logged in to as a user without rights, made for this and removed again. PY are Pythons that this
user may run: with numpy and a runtime (no torch), with numpy alone, with neither.
"""

from __future__ import annotations

import argparse
import html
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.deploy.cuts import BYTES_PER_S, cut_transfers
from benchmarks.deploy.device import Device, deploy, loopback_device, read_json
from benchmarks.deploy.failures import provoke
from benchmarks.deploy.sshd import why_not
from compress_export.deploy.payload import read_payload
from exporters import write_sums

RESULT = Path(__file__).parents[1] / "results" / "deploy.json"
BALLAST_BYTES = 12 * 2**20
GATE_LIMITS = "limits:\n  latency: 5ms\n  memory: 300MiB\n"


def main() -> None:
    """Run all, print rows as they come."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--python")
    parser.add_argument("--numpy-python")
    parser.add_argument("--bare-python")
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    if reason := why_not():
        sys.exit(reason)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the user and the server go again
    pythons = {
        "runtime": options.python,
        "numpy": options.numpy_python,
        "none": options.bare_python,
    }
    with TemporaryDirectory(prefix="deploy-", dir="/var/tmp") as name, loopback_device() as device:
        work = Path(name)
        for version in ("old", "run/bundle"):
            shutil.copytree(options.run / "bundle", work / version)
        (work / "old" / "labels.txt").write_text("an earlier version\n")
        write_sums(work / "old")
        shutil.copy(options.run / "report.json", work / "run")
        if (options.run / "evidence").is_dir():
            shutil.copytree(options.run / "evidence", work / "run" / "evidence")
        result = _measure(device, work, pythons)
    options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def _measure(device: Device, work: Path, pythons: dict[str, str | None]) -> dict[str, Any]:
    bundle, old = work / "run" / "bundle", work / "old"
    speed = _times(device, bundle, pythons["runtime"])
    print(json.dumps(speed), flush=True)
    shutil.copytree(bundle, work / "bundle")
    failures = provoke(device, old, work / "bundle", pythons, lambda line: print(line, flush=True))
    large = work / "large"
    shutil.copytree(bundle, large)
    (large / "ballast").write_bytes(os.urandom(BALLAST_BYTES))
    write_sums(large)
    cuts = cut_transfers(device, old, large, lambda line: print(line, flush=True))
    version = subprocess.run(["ssh", "-V"], capture_output=True, text=True, check=True).stderr
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "ssh": version.strip(),
        "machine": f"{platform.system()} {platform.machine()}",
        "restricted_user": device.restricted,
        "speed": speed,
        "cuts": {"bytes": BALLAST_BYTES, "bytes_per_s": BYTES_PER_S, "rows": cuts},
        "failures": failures,
    }


def _times(device: Device, bundle: Path, python: str | None) -> dict[str, Any]:
    """Time deploy, the same again, two devices at once, and the bench with its way home."""
    at = f"board:{device.home}/speed"
    cases: dict[str, list[object]] = {
        "deploy": [bundle, at],
        "the same again": [bundle, at],
        "two folders at once": [bundle, f"{at}-2", f"{at}-3"],
    }
    if python is not None:
        cases["with --bench"] = [bundle, at, "--bench", "--python", python, "--runs", 20]
    rows = []
    for name, words in cases.items():
        started = time.monotonic()
        code, said = deploy(device.server.config, *words)
        seconds = round(time.monotonic() - started, 2)
        rows.append({"case": name, "code": code, "seconds": seconds, "said": said})
    report = read_json(bundle.parent / "report.json")
    measured = [
        {
            "file": file["name"],
            "runtime": file["runtime"],
            "p90_ms": file["latency_ms"]["p90"] if file["latency_ms"] else None,
            "measured_on": file["measured_on"],
            "top1": file["top1"],
            "samples": file["samples"],
        }
        for entry in report.get("device_measurements", ())
        for file in entry["measurements"]
    ]
    size_bytes = read_payload(bundle).size_bytes
    page = bundle.parent / "report.html"
    shown = page.is_file() and at in html.unescape(page.read_text(encoding="utf-8"))
    return {
        "bundle_bytes": size_bytes,
        "rows": rows,
        "in_report_json": measured,
        "in_report_html": shown,
        "gate": _gate(bundle.parent, device.home),
    }


def _gate(run: Path, home: Path) -> dict[str, Any]:
    """What the gate says of the report with the device's figures, under limits for these too.

    Args:
        home: on the device; only what follows it is of interest.
    """
    limits = run / "limits.yaml"
    limits.write_text(GATE_LIMITS, encoding="utf-8")
    words = ["gate", str(run), "--limits", str(limits), "--require-measured"]
    command = [sys.executable, "-m", "compress_export", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return {"code": done.returncode, "lines": done.stdout.replace(str(home), "").splitlines()}


if __name__ == "__main__":
    main()
