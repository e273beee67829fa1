"""The Python API: docs/api.md runs as it stands, and importing it costs nothing."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_networks
from pydantic import ValidationError

import compress_export
from compress_export import JobOptions

ROOT = Path(__file__).parents[2]


def run_python(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )


def test_the_page_runs_as_it_stands(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(blocks) > 3
    ended = run_python("\n".join(blocks), tmp_path)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert {path.name for path in tmp_path.iterdir()} >= {"digits", "brightness", "mine.py"}


def test_importing_loads_nothing_heavy(tmp_path: Path) -> None:
    code = """
import sys, compress_export
from compress_export import JobOptions, UsageError, ExitCode, load_board
heavy = {"torch", "onnx", "onnxruntime", "jax", "sklearn", "torchvision", "matplotlib"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
"""
    ended = run_python(code, tmp_path)
    assert ended.returncode == 0, ended.stderr


def test_every_name_is_there() -> None:
    homes = [name for names in compress_export._HOMES.values() for name in names]
    assert sorted(homes) == sorted(compress_export.__all__)
    for name in compress_export.__all__:
        assert getattr(compress_export, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        compress_export.nothing  # noqa: B018


def test_functions_stand_for_their_names() -> None:
    options = JobOptions(board="jetson", model=tiny_networks.two_blocks, data="digits")
    assert options == JobOptions(board="jetson", model="tiny_networks:two_blocks", data="digits")


@pytest.mark.parametrize("function", [lambda num_classes: None, tiny_networks.TwoBlocks.forward])
def test_functions_that_could_not_be_found_again(function: object) -> None:
    with pytest.raises(ValidationError, match="a module that can be imported"):
        JobOptions(board="jetson", model=function)
