"""`runtime-bench [FOLDER]`: measure a model folder on the machine at hand.

Exit codes: 0 passed, 1 a budget missed, 2 wrong usage or a bad folder, 3 a runtime failed,
4 no runtime could be imported, or a budget is unverified and --require-measured was given.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Sequence
from importlib.util import find_spec
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
    overall,
    read_manifest,
    slower_int8,
    verdict,
)
from runtime_bench.manifest import RUNTIMES
from runtime_bench.signature import verify_signature
from runtime_bench.verdict import EXIT_NOT_MEASURED, EXIT_PASSED

EXIT_USAGE, EXIT_FAILED, EXIT_INTERRUPTED, EXIT_TERMINATED = 2, 3, 130, 143
SAMPLES_NAME = "samples.npz"
_PACKED = Path()  # --samples without a value
_ARCHIVE = Path(__file__).resolve().parent.parent  # bench.pyz where this runs from one


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print a table and the checks, return the exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.folder is None:
        parser.error("which folder? name the one that holds manifest.json")
    if options.json and not options.json.absolute().parent.is_dir():
        parser.error(f"--json {options.json}: its folder does not exist")
    if options.json and options.json.is_dir():
        parser.error(f"--json {options.json}: is a folder; give the name of a file")
    if find_spec("numpy") is None:
        return _complain(f"{sys.executable} has no numpy: pip install numpy", EXIT_NOT_MEASURED)
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
    if options.verify_key is not None:
        verify_signature(options.folder, options.verify_key)
    samples = _samples(options)
    measurements = measure_folders(
        [options.folder, *options.reference],
        samples=samples,
        threads=options.threads,
        runs=options.runs,
        warmup=options.warmup,
        progress=lambda line: _write(sys.stderr, line),
        runtime=options.runtime,
    )
    manifest = read_manifest(options.folder)
    checks = verdict(measurements, manifest, baseline_top1=_baseline_top1(samples))
    if options.json:
        options.json.write_text(_json(measurements, checks), encoding="utf-8")
    for line in _lines(measurements, checks):
        _write(sys.stdout, line)
    code = exit_code(checks, options.require_measured)
    if code == EXIT_PASSED and measurements and not any(item.runtime for item in measurements):
        formats = sorted({item.format for item in measurements})
        wanted = "; ".join(f"for {name}: {' or '.join(RUNTIMES[name])}" for name in formats)
        return _complain(
            f"nothing was measured, {sys.executable} has no runtime for these files; "
            f"pip install one ({wanted})",
            EXIT_NOT_MEASURED,
        )
    return code


def _samples(options: argparse.Namespace) -> Path | None:
    """The samples file that was asked for. Raises SamplesError where the folder holds none."""
    if options.samples != _PACKED:
        return options.samples
    packed = options.folder / SAMPLES_NAME
    if not packed.is_file():
        raise SamplesError(
            f"--samples: {options.folder} holds no {SAMPLES_NAME}; make the folder with "
            "compress-export --bundle-samples N, or name a file"
        )
    return Path(packed)


def _baseline_top1(samples: Path | None) -> float | None:
    if samples is None:
        return None
    from runtime_bench.samples import open_samples

    return open_samples(samples).baseline_top1()


def _lines(measurements: Sequence[Measurement], checks: Sequence[Check]) -> list[str]:
    warnings = [f"warning: {text}" for text in slower_int8(measurements)]
    rows = [_row(item) for item in measurements]
    return [*rows, *warnings, *map(str, checks), f"verdict: {overall(checks)}"]


def _row(item: Measurement) -> str:
    peak_mib = item.peak_rss_bytes and item.peak_rss_bytes / 2**20
    arena = f"arena {item.arena['smallest_bytes']} bytes, " if item.arena else ""
    return (
        f"{item.name}: {item.size_bytes} bytes, top-1 {_text(item.top1)}, "
        f"p90 {_text(item.latency_ms['p90'] if item.latency_ms else None, ' ms')}, "
        f"peak RSS {_text(peak_mib, ' MiB')}, {arena}"
        f"{item.runtime or item.note}, measured on {item.measured_on}"
    )


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
    parser = argparse.ArgumentParser(
        prog=_ARCHIVE.name if _ARCHIVE.is_file() else "runtime-bench", description=__doc__
    )
    parser.add_argument(
        "folder",
        type=Path,
        nargs="?",
        default=_ARCHIVE.parent if _ARCHIVE.is_file() else None,
        help="the bundle: manifest.json and its files; bench.pyz takes the folder that it lies in",
    )
    parser.add_argument(
        "--reference", type=Path, action="append", default=[], help="a folder to time beside it"
    )
    parser.add_argument(
        "--samples",
        type=Path,
        nargs="?",
        const=_PACKED,
        metavar="FILE",
        help="labelled images (.npz) for the accuracy; without FILE those packed in the bundle",
    )
    parser.add_argument("--threads", type=_positive, default=1)
    parser.add_argument("--runs", type=_positive, default=100, help="timed runs per file")
    parser.add_argument("--warmup", type=_positive, default=10, help="untimed runs before them")
    parser.add_argument(
        "--runtime",
        choices=[name for names in RUNTIMES.values() for name in names],
        help="for the files of its format; default: the first that is installed",
    )
    parser.add_argument(
        "--verify-key",
        type=Path,
        metavar="PUB.pem",
        help="check the folder's signature first; needs pip install model-signing pyOpenSSL",
    )
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
    _write(sys.stderr, f"runtime-bench: {problem}")
    return code


def _write(stream: TextIO, line: str) -> None:
    stream.write(line + "\n")


if __name__ == "__main__":
    sys.exit(main())
