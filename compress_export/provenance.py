"""What decided a result: the inputs, and the machine and libraries that worked on them."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress_export.errors import UsageError
from compress_export.whole_files import write_whole

if TYPE_CHECKING:
    from boards import Board
    from compress_export.options import JobOptions
    from compress_export.task import Task
    from compressor.compute import Compute

_LIBRARIES = (
    "torch", "torchvision", "onnx", "onnxruntime", "onnxscript", "onnxsim", "numpy", "litert-torch",
    "ai-edge-quantizer", "ai-edge-litert", "jax", "pillow", "scikit-learn", "timm",
)  # fmt: skip
_OURS = ("boards", "compress_export", "compressor", "exporters", "runtime_bench")
_NOTE = "provenance.json"


def inputs_of(options: JobOptions, board: Board, task: Task) -> dict[str, Any]:
    """Return the SHA-256 of everything that a job is given, None where nothing was.

    Args:
        board: the user's limits and rules already in place of its own.
    """
    specs = (options.model, options.data, options.loss, options.metric, options.teacher_model)
    modules = {spec.partition(":")[0] for spec in specs if spec and ":" in spec}
    return {
        "data_sha256": task.data.fingerprint,
        "weights_sha256": file_sha256(options.weights),
        "teacher_sha256": file_sha256(options.teacher),
        "board_sha256": board_sha256(board),
        "code_sha256": {name: found for name in sorted(modules) if (found := _module_sha256(name))},
    }


def board_sha256(board: Board) -> str:
    """Digest of everything in a descriptor."""
    return hashlib.sha256(board.model_dump_json().encode()).hexdigest()


def environment(compute: Compute) -> dict[str, Any]:
    """Return versions and machine, as `environment` in report.json."""
    import torch

    from compressor import ranks
    from runtime_bench import host_facts

    host = host_facts()
    return {
        "python": platform.python_version(),
        "system": platform.platform(),
        "libraries": {name: _version(name) for name in _LIBRARIES},
        "source_sha256": source_sha256(),
        "host": host.to_json(),
        "cpu_flags": sorted(host.flags),
        "torch": {
            "device": str(compute.device),
            "threads": torch.get_num_threads(),
            "processes": ranks.count(),
            "cpu_capability": torch.backends.cpu.get_cpu_capability(),
            "mixed_precision": compute.mixed_precision,
        },
    }


def note_provenance(run: Path, inputs: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """Note in DIR.run what a job starts from; return what a resumed one has otherwise.

    Args:
        here: this machine's `environment`.

    Raises:
        UsageError: an input has changed since the job was started.
    """
    path = run / _NOTE
    if not path.is_file():
        write_whole(path, json.dumps({"inputs": inputs, "environment": here}) + "\n")
        return []
    noted = json.loads(path.read_text(encoding="utf-8"))
    if changed := differences(noted["inputs"], inputs):
        raise UsageError(
            f"--resume: {run} was started with other inputs, {changed[0]}; put them back, or start "
            "anew with --force"
        )
    other = differences(noted["environment"], here)
    return [f"resumed in another environment, so results may differ: {line}" for line in other]


def differences(before: Any, after: Any, name: str = "") -> list[str]:
    """Return a line for every value of plain JSON that differs, with its path."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        keys = [*before, *(key for key in after if key not in before)]
        pairs = [(f"{name}.{k}".lstrip("."), before.get(k), after.get(k)) for k in keys]
        return [line for key, old, new in pairs for line in differences(old, new, key)]
    return [] if before == after else [f"{name} was {_short(before)} and is {_short(after)}"]


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 60 else f"{text[:28]}...{text[-28:]}"


def file_sha256(path: Path | None) -> str | None:
    """Digest of a file, or of all files in a folder."""
    if path is None:
        return None
    if path.is_dir():
        return _digest(sorted(file for file in path.iterdir() if file.is_file()))
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _module_sha256(name: str) -> str | None:
    """Digest of the file of a user's module; None for what has none, as `torchvision:resnet18`."""
    import importlib.util

    try:
        found = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None
    return file_sha256(Path(found.origin)) if found and found.origin else None


def source_sha256() -> str:
    """Digest of this program's own code."""
    root = Path(__file__).resolve().parents[1]
    return _digest([path for name in _OURS for path in sorted((root / name).rglob("*.py"))])


def _digest(files: list[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.parent.name}/{file.name} {file_sha256(file)}\n".encode())
    return digest.hexdigest()


def _version(library: str) -> str | None:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return None
