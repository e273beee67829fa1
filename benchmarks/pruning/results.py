"""Finished runs, one JSON object a line: appended once, never changed."""

from __future__ import annotations

import base64
import json
import platform
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

FOLDER = Path(__file__).parents[1] / "results" / "pruning"


def append(path: Path, row: dict[str, Any]) -> None:
    """Append a finished run with the environment it ran in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as out:
        out.write(json.dumps({**row, "environment": environment()}) + "\n")


def rows(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the finished runs of a file; none where it doesn't exist yet."""
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            yield json.loads(line)


def finished(path: Path, key: dict[str, Any]) -> bool:
    """Tell whether a run with these values is there."""
    return any(all(row.get(k) == v for k, v in key.items()) for row in rows(path))


def refuse_mixed(
    found: Sequence[Mapping[str, Any]], of: Sequence[str], alike: Sequence[str]
) -> None:
    """Refuse rows that a table would take for seeds of one run though their settings differ.

    Args:
        of: what tells the table's entries apart.
        alike: settings that rows with equal values of these must share.

    Raises:
        ValueError: they don't; the message names the setting and its values.
    """
    seen: dict[tuple[Any, ...], Mapping[str, Any]] = {}
    for row in found:
        entry = tuple(row[key] for key in of)
        first = seen.setdefault(entry, row)
        for name in alike:
            if row[name] != first[name]:
                raise ValueError(
                    f"{' '.join(map(str, entry))}: runs with {name} {first[name]} and {row[name]} "
                    "don't belong into one table; keep them in different folders (--results)"
                )


def environment() -> dict[str, Any]:
    """Return what a figure depends on beside the code's arguments."""
    return {
        "date": time.strftime("%Y-%m-%d"),
        "commit": _commit(),
        "processor": platform.processor() or platform.machine(),
        "device": str(torch.accelerator.current_accelerator(check_available=True) or "cpu"),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def pack(right: NDArray[np.bool_]) -> str:
    """Pack which test images were answered rightly, shape (N,), into base64 text."""
    return base64.b64encode(np.packbits(right).tobytes()).decode()


def unpack(text: str, count: int) -> NDArray[np.bool_]:
    """Undo `pack`."""
    return np.unpackbits(np.frombuffer(base64.b64decode(text), np.uint8))[:count].astype(bool)


def _commit() -> str:
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip()
