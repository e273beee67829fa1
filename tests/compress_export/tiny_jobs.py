"""Run jobs on the tiny network, in this process or in one of their own."""

from __future__ import annotations

import io
import json
import os
import shlex
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compress_export.cli import main

HERE = Path(__file__).parent
NETWORK = shlex.split(
    "--model tiny_networks:two_blocks --data digits --input-size 8 --batch-size 64 --threads 1 "
    "--calibration-samples 64 --latency-runs 5"
)
QUICK = shlex.split("--baseline-epochs 0 --search-epochs 1 --finetune-epochs 1")


@dataclass(frozen=True)
class Ended:
    """How a command line ended.

    Attributes:
        out: DIR, which need not exist.
        said, complained: standard output and error.
    """

    code: int
    out: Path
    said: str
    complained: str

    @property
    def report(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.out / "report.json").read_text())
        return found

    @property
    def run(self) -> Path:
        """DIR.run."""
        return self.out.with_name(self.out.name + ".run")


def run_here(out: Path, *arguments: str | Path) -> Ended:
    """Run the command line in this process."""
    return run_line(out, *arguments, "--out", out)


def run_line(out: Path, *arguments: str | Path) -> Ended:
    """The same with nothing added: `out` is only where the result is looked for."""
    said, complained = io.StringIO(), io.StringIO()
    with redirect_stdout(said), redirect_stderr(complained):
        code = main([*map(str, arguments)])
    return Ended(code, out, said.getvalue(), complained.getvalue())


def in_a_process(out: Path, *arguments: str | Path) -> tuple[list[str], dict[str, str]]:
    """Return command and environment that run the command line in a process of its own."""
    command = [sys.executable, "-m", "compress_export", *map(str, arguments), "--out", str(out)]
    path = f"{HERE.parents[1]}{os.pathsep}{HERE}"
    return command, {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
