"""CIFAR ResNets through the whole job for the x86-64 board, as a user would run it.

    python benchmarks/cifar_resnets.py --data CIFAR --checkpoints DIR --work DIR

CIFAR is a folder with train/ and test/; the checkpoints' folder holds resnet20-*.th and
resnet56-*.th. Runs the command line once per network (an interrupted run goes on, a finished one
is not repeated), then measures all files again, one network after the other, and writes
results/cifar-NETWORK.json (the reports) and results/cifar.md.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
JOB = (
    "--board", "x86-64", "--baseline-epochs", "6", "--target-macs", "0.5",
    "--search-epochs", "5", "--finetune-epochs", "5",
)  # fmt: skip
FORMATS = {"onnx": "ONNX", "tflite": "TFLite"}


def main() -> int:
    """Run what is missing, collect the reports, write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--checkpoints", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="where results of the job go")
    parser.add_argument("--networks", nargs="+", default=["resnet20", "resnet56"])
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    reports = {}
    for network in arguments.networks:
        (weights,) = sorted(arguments.checkpoints.glob(f"{network}-*.th"))
        out = arguments.work / network
        _run_job(network, weights, arguments.data, out, arguments.seed)
        _cli("--board", "x86-64", "--stages", "bench", "--latency-runs", "300", "--out", str(out))
        reports[network] = _without_paths(json.loads((out / "report.json").read_text()))
    RESULTS.mkdir(exist_ok=True)
    for network, report in reports.items():
        text = json.dumps(report, indent=1)
        (RESULTS / f"cifar-{network}.json").write_text(text + "\n")
    (RESULTS / "cifar.md").write_text(_tables(reports))
    return 0


def _run_job(network: str, weights: Path, data: Path, out: Path, seed: int) -> None:
    if (out / "report.json").exists():
        return
    unfinished = out.with_name(out.name + ".run").exists()
    _cli(
        *JOB, "--model", network, "--weights", str(weights), "--data", str(data),
        "--seed", str(seed), "--out", str(out), *(["--resume"] if unfinished else []),
    )  # fmt: skip


def _cli(*arguments: str) -> None:
    """Run the command line; a missed budget (1) is a result too, anything else is not."""
    done = subprocess.run([sys.executable, "-m", "compress_export", *arguments], check=False)
    if done.returncode not in (0, 1):
        raise SystemExit(f"compress-export {' '.join(arguments)} ended with {done.returncode}")


def _without_paths(report: dict[str, Any]) -> dict[str, Any]:
    """Keep file names only: the folders of the machine that measured say nothing."""
    shorten = {"weights", "data", "out", "data_root"}
    options = {
        key: Path(value).name if key in shorten and value else value
        for key, value in report["options"].items()
    }
    command = [Path(word).name if "/" in word else word for word in report["command"]]
    return {**report, "options": options, "command": command, "data": Path(report["data"]).name}


def _tables(reports: dict[str, dict[str, Any]]) -> str:
    parts = [
        f"# CIFAR ResNets for x86-64\n\nJob: `{' '.join(JOB)}`.\n",
        "Times are wall times of a machine that did other work too. A stage that an interrupted "
        "run had finished before timings were kept counts its loading alone.\n",
    ]
    for network, report in reports.items():
        parts.append(f"## {network}, seed {report['seed']}\n")
        parts += [_accuracy(report), _speed(report)]
        spent = report["timings_seconds"]
        listing = ", ".join(f"{stage} {seconds:.0f} s" for stage, seconds in spent.items())
        parts.append(f"Time: {listing}. Figures: cifar-{network}.json.\n")
    return "\n".join(parts)


def _accuracy(report: dict[str, Any]) -> str:
    rows = [
        "| | size MiB | parameters | MACs | top-1 % | agreement % | precision % | recall % |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for stage, figures in report["stages"].items():
        rows.append(
            f"| {stage} torch | {_mib(figures['size_bytes'])} | {figures['params']:,} | "
            f"{figures['macs'] / 1e6:.2f} M | {figures['top1'] * 100:.2f} | | | |"
        )
    for file in report["artifacts"]:
        rows.append(
            f"| {file['stage']} {FORMATS[file['format']]} {file['precision']} | "
            f"{_mib(file['size_bytes'])} | | | {file['top1'] * 100:.2f} | "
            f"{file['agreement'] * 100:.2f} | {file['precision_macro'] * 100:.2f} | "
            f"{file['recall_macro'] * 100:.2f} |"
        )
    return "\n".join(rows) + "\n"


def _speed(report: dict[str, Any]) -> str:
    """p50 of every file, and how many times faster than its own and the baseline's float file."""
    files = {(f["stage"], f["format"], f["precision"]): f for f in report["artifacts"]}
    threads = report["artifacts"][0]["threads"]
    rows = [
        f"| {threads} thread(s), one run | p50 ms | p90 ms | x own float | x baseline float |",
        "|---|---:|---:|---:|---:|",
    ]
    for (stage, kind, precision), file in files.items():
        p50 = file["latency_ms"]["p50"]
        own = files[stage, kind, "float32"]["latency_ms"]["p50"] / p50
        base = files["baseline", kind, "float32"]["latency_ms"]["p50"] / p50
        rows.append(
            f"| {stage} {FORMATS[kind]} {precision} | {p50:.3f} | "
            f"{file['latency_ms']['p90']:.3f} | {own:.2f} | {base:.2f} |"
        )
    return "\n".join(rows) + "\n"


def _mib(size_bytes: int | None) -> str:
    return "" if size_bytes is None else f"{size_bytes / 2**20:.3f}"


if __name__ == "__main__":
    raise SystemExit(main())
