"""What is the user's own in a finished DIR stays there when it is measured again."""

from __future__ import annotations

from pathlib import Path

import pytest

from compress_export.contents import copy_contents, is_made


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """A DIR with files of the job's and of the user's; beside it a folder that links lead to."""
    folder = tmp_path / "out"
    names = ("report.json", "report.html", "bundle/a.onnx", "precision.png", "notes.txt", "my/log")
    for path in (*(folder / name for name in names), tmp_path / "elsewhere" / "data"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(path.name)
    (folder / "link").symlink_to("../elsewhere")
    (folder / "my" / "gone").symlink_to("nowhere")
    (folder / "evidence").symlink_to("../elsewhere")
    return folder


def test_all_but_the_reports_is_copied(finished: Path, tmp_path: Path) -> None:
    copy = tmp_path / "staged"
    copy.mkdir()
    copy_contents(finished, copy)
    assert {path.relative_to(copy).as_posix() for path in copy.rglob("*") if path.is_file()} == {
        "bundle/a.onnx", "precision.png", "notes.txt", "my/log", "evidence/data"
    }  # fmt: skip
    assert str((copy / "link").readlink()) == "../elsewhere"
    assert str((copy / "my" / "gone").readlink()) == "nowhere"
    assert not (copy / "evidence").is_symlink()


@pytest.mark.parametrize(
    ("name", "made"),
    [
        ("report.json", True),
        ("bundle/README.md", True),
        ("torch/slim/model.safetensors", True),
        ("first_aid.png", True),
        ("notes.txt", False),
        ("my/report.json", False),
    ],
)
def test_whose_a_file_is(name: str, made: bool) -> None:
    assert is_made(name) is made
