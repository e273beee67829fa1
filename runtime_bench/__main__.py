"""`python -m runtime_bench FOLDER`: measure a model folder on the machine at hand.

Exit codes: 0 passed, 1 a budget missed, 2 wrong usage or a bad folder, 3 a runtime failed,
4 could not be measured though --require-measured asked for it.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn, TextIO

from runtime_bench import (
    Check,
    ManifestError,
    Measurement,
    SamplesError,
    exit_code,
    host_facts,
    measure_folders,
    open_samples,
    overall,
    read_manifest,
    slower_int8,
    verdict,
)

EXIT_USAGE, EXIT_FAILED, EXIT_INTERRUPTED, EXIT_TERMINATED = 2, 3, 130, 143


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print a table and the checks, return the exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.json and not options.json.absolute().parent.is_dir():
        parser.error(f"--json {options.json}: its folder does not exist")
    signal.signal(signal.SIGTERM, _terminate)
    try:
        return _bench(options)
    except (ManifestError, SamplesError) as error:
        return _complain(error, EXIT_USAGE)
    except KeyboardInterrupt:
        return _complain("interrupted", EXIT_INTERRUPTED)
    except Exception as error:
        return _complain(f"{type(error).__name__}: {error}", EXIT_FAILED)


def _bench(options: argparse.Namespace) -> int:
    measurements = measure_folders(
        [options.folder, *options.reference],
        samples=options.samples,
        threads=options.threads,
        runs=options.runs,
        warmup=options.warmup,
        progress=lambda line: _write(sys.stderr, line),
    )
    baseline_top1 = open_samples(options.samples).baseline_top1() if options.samples else None
    checks = verdict(measurements, read_manifest(options.folder), baseline_top1=baseline_top1)
    if options.json:
        options.json.write_text(_json(measurements, checks), encoding="utf-8")
    for line in _lines(measurements, checks):
        _write(sys.stdout, line)
    return exit_code(checks, options.require_measured)


def _lines(measurements: Sequence[Measurement], checks: Sequence[Check]) -> list[str]:
    rows = [
        f"{item.name}: {item.size_bytes} bytes, "
        f"top-1 {_text(item.top1)}, "
        f"p90 {_text(item.latency_ms['p90'] if item.latency_ms else None, ' ms')}, "
        f"peak RSS {_text(item.peak_rss_bytes and item.peak_rss_bytes / 2**20, ' MiB')}, "
        f"{item.runtime or item.note}, measured on {item.measured_on}"
        for item in measurements
    ]
    warnings = [f"warning: {text}" for text in slower_int8(measurements)]
    return [*rows, *warnings, *map(str, checks), f"verdict: {overall(checks)}"]


def _json(measurements: Sequence[Measurement], checks: Sequence[Check]) -> str:
    content = {
        "host": host_facts().to_json(),
        "measurements": [item.to_json() for item in measurements],
        "checks": [check.to_json() for check in checks],
        "verdict": overall(checks),
        "warnings": list(slower_int8(measurements)),
    }
    return json.dumps(content, indent=2) + "\n"


def _text(value: float | None, unit: str = "") -> str:
    return "not measured" if value is None else f"{value:.4g}{unit}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m runtime_bench", description=__doc__)
    parser.add_argument("folder", type=Path, help="the bundle: manifest.json and its files")
    parser.add_argument(
        "--reference", type=Path, action="append", default=[], help="a folder to time beside it"
    )
    parser.add_argument("--samples", type=Path, help="labelled images (.npz) for the accuracy")
    parser.add_argument("--threads", type=_positive, default=1)
    parser.add_argument("--runs", type=_positive, default=100, help="timed runs per file")
    parser.add_argument("--warmup", type=_positive, default=10, help="untimed runs before them")
    parser.add_argument("--json", type=Path, help="write all figures here")
    parser.add_argument("--require-measured", action="store_true", help="4 if one is unverified")
    return parser


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not at least 1")
    return value


def _terminate(number: int, frame: object) -> NoReturn:
    raise SystemExit(EXIT_TERMINATED)  # unwinds, so that the measuring processes end too


def _complain(problem: object, code: int) -> int:
    _write(sys.stderr, f"runtime_bench: {problem}")
    return code


def _write(stream: TextIO, line: str) -> None:
    stream.write(line + "\n")


if __name__ == "__main__":
    sys.exit(main())
