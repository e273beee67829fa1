"""SHA256SUMS is checked before anything runs."""

from __future__ import annotations

import hashlib
from pathlib import Path

import bench_models
import pytest

from runtime_bench import ManifestError, describe_folders, verify_sums


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = bench_models.write_folder(tmp_path / "bundle", ["slim.float32.onnx"])
    (made / "labels.txt").write_text("a\nb\n")
    lines = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n"
        for path in sorted(made.iterdir())
    ]
    (made / "SHA256SUMS").write_text("".join(lines))
    return made


def test_an_untouched_folder_passes(folder: Path) -> None:
    verify_sums(folder)
    (folder / "figures.json").write_text("{}")  # what the bench itself writes there is no fault
    verify_sums(folder)


def test_a_folder_without_sums_is_the_manifests_matter(folder: Path) -> None:
    (folder / "SHA256SUMS").unlink()
    verify_sums(folder)


def test_all_differences_come_at_once(folder: Path) -> None:
    (folder / "labels.txt").write_text("b\na\n")
    (folder / "slim.float32.onnx").unlink()
    with pytest.raises(ManifestError, match=r"labels\.txt has another sha256; slim.* is missing"):
        describe_folders([folder])


def test_a_changed_manifest_is_refused_before_it_is_read(folder: Path) -> None:
    (folder / "manifest.json").write_text("no JSON at all")
    with pytest.raises(ManifestError, match=r"manifest\.json has another sha256"):
        describe_folders([folder])


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("0" * 64 + "  ../outside", "does not stay inside"),
        ("0" * 64 + "  /etc/passwd", "does not stay inside"),
        ("12ab  labels.txt", "line 1 is no sum"),
        ("\ufeff", "line 1 is no sum"),
    ],
)
def test_lines_that_are_no_sums(folder: Path, line: str, why: str) -> None:
    (folder / "SHA256SUMS").write_text(line + "\n", encoding="utf-8")
    with pytest.raises(ManifestError, match=why):
        verify_sums(folder)
