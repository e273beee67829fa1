"""make removes nothing but what it made."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

MAKEFILE = Path(__file__).resolve().parents[2] / "Makefile"

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="no make here")


def clean(folder: Path, venv: str) -> subprocess.CompletedProcess[str]:
    command = ["make", "-f", str(MAKEFILE), "clean", f"VENV={venv}"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("venv", ["my venv", "my ", "/nowhere/my venv", ""])
def test_an_environment_with_spaces_is_refused(tmp_path: Path, venv: str) -> None:
    names = {"my", "venv", "build"}
    for name in names:
        (tmp_path / name).mkdir()
    ended = clean(tmp_path, venv)
    assert ended.returncode != 0
    assert "must be one path without spaces" in ended.stderr
    assert {path.name for path in tmp_path.iterdir()} == names


def test_clean_removes_the_environment(tmp_path: Path) -> None:
    (tmp_path / "my-venv").mkdir()
    (tmp_path / "kept").mkdir()
    assert clean(tmp_path, "my-venv").returncode == 0
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
