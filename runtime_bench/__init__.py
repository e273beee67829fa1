"""Measure a folder of model files where they will run, and hold them to the board's budgets.

Needs numpy and a runtime (onnxruntime, ai-edge-litert, tflite-runtime or tflite-micro), nothing
else; Python 3.8 or later.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from runtime_bench.errors import (
    BenchError,
    CodebookError,
    ManifestError,
    RuntimeMissingError,
    SamplesError,
)
from runtime_bench.gain import without_gain
from runtime_bench.host import HostFacts, host_facts, host_matches, is_board
from runtime_bench.manifest import BoardRef, Manifest, read_manifest
from runtime_bench.measure import describe_folders, measure_folder, measure_folders
from runtime_bench.measurement import Measurement
from runtime_bench.trace import Trace
from runtime_bench.verdict import (
    MACHINE_BOUND,
    Check,
    exit_code,
    judge,
    overall,
    slower_int8,
    verdict,
    violations,
    worst,
)
from runtime_bench.verify import verify_files, verify_sums

if TYPE_CHECKING:
    from runtime_bench.bursts import Burst, runtime_name
    from runtime_bench.codebook_file import read_codebook_file
    from runtime_bench.samples import Samples, open_samples
    from runtime_bench.small_files import time_side_by_side, time_small_files

__all__ = [
    "MACHINE_BOUND",
    "BenchError",
    "BoardRef",
    "Burst",
    "Check",
    "CodebookError",
    "HostFacts",
    "Manifest",
    "ManifestError",
    "Measurement",
    "RuntimeMissingError",
    "Samples",
    "SamplesError",
    "Trace",
    "describe_folders",
    "exit_code",
    "host_facts",
    "host_matches",
    "is_board",
    "judge",
    "measure_folder",
    "measure_folders",
    "open_samples",
    "overall",
    "read_codebook_file",
    "read_manifest",
    "runtime_name",
    "slower_int8",
    "time_side_by_side",
    "time_small_files",
    "verdict",
    "verify_files",
    "verify_sums",
    "violations",
    "without_gain",
    "worst",
]

# These import numpy, which takes most of a second on a small board: only where they are used.
_HOMES = {
    "Burst": "bursts",
    "runtime_name": "bursts",
    "read_codebook_file": "codebook_file",
    "Samples": "samples",
    "open_samples": "samples",
    "time_side_by_side": "small_files",
    "time_small_files": "small_files",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
