"""Measure a folder of model files where they will run, and hold them to the board's budgets.

Needs numpy and a runtime (onnxruntime, ai-edge-litert or tflite-runtime), nothing else.
"""

from runtime_bench.bursts import Burst, runtime_name
from runtime_bench.codebook_file import read_codebook_file
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
from runtime_bench.samples import Samples, open_samples
from runtime_bench.small_files import time_side_by_side, time_small_files
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
from runtime_bench.verify import verify_files

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
    "violations",
    "without_gain",
    "worst",
]
