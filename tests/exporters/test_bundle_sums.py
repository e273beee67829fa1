"""SHA256SUMS is what sha256sum reads, and covers all but itself and signatures."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest

from boards import load_board
from exporters import write_manifest, write_sums


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.txt", "a b.txt", "sub/c.bin", "model.sig", "SHA256SUMS"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    return tmp_path


def test_every_file_but_itself_and_signatures(folder: Path) -> None:
    lines = write_sums(folder).read_text().splitlines()
    assert lines == [
        f"{hashlib.sha256(name.encode()).hexdigest()}  {name}"
        for name in ("a b.txt", "b.txt", "sub/c.bin")
    ]


def test_sha256sum_agrees(folder: Path) -> None:
    if shutil.which("sha256sum") is None:
        pytest.skip("no sha256sum here")
    write_sums(folder)
    command = ["sha256sum", "--check", "--strict", "SHA256SUMS"]
    assert subprocess.run(command, cwd=folder, check=False, capture_output=True).returncode == 0
    (folder / "b.txt").write_text("changed")
    assert subprocess.run(command, cwd=folder, check=False, capture_output=True).returncode == 1


def test_what_a_microcontroller_has_is_a_budget(tmp_path: Path) -> None:
    about = {
        "model": "any",
        "classes": ["one"],
        "input_shape": (3, 8, 8),
        "preprocessing": {},
    }
    text = write_manifest(tmp_path, (), board=load_board("stm32h747"), **about).read_text()
    assert '"ram_mib": 0.5' in text and '"flash_mib": 1.75' in text
    text = write_manifest(tmp_path, (), board=load_board("rpi5"), **about).read_text()
    assert "ram_mib" not in text and "flash_mib" not in text
