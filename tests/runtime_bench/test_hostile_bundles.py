"""Bundles from elsewhere: whatever their files hold, reading them ends in an error of the bench."""

from __future__ import annotations

import hashlib
import io
import json
import lzma
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bench_models
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime_bench import (
    CodebookError,
    ManifestError,
    SamplesError,
    codebook_file,
    npz,
    open_samples,
    read_codebook_file,
    read_manifest,
    verify_files,
    verify_sums,
)
from runtime_bench.plain_json import MOST_BYTES, parse_json

ODD = st.sampled_from(
    [None, True, -1, 2**63, 10**400, 1e308, float("nan"), "", "\x1b[2J", "../x", "x" * 300, [],
     {}, [[1]]]
)  # fmt: skip


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"[" * 100_000, "nested"),
        (b"[" * 40 + b"]" * 40, "nested deeper than 32"),
        (b"9" * 25, "64 bits"),
        (b'"\\ud800"', "surrogates"),
        (b" " * MOST_BYTES + b"{}", "more than 16 MiB"),
        (b"\xff", "utf-8"),
    ],
)
def test_json_out_of_bounds(text: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse_json(text)


def places(tree: Any) -> list[tuple[Any, Any]]:
    """Every (holder, key) of a JSON tree."""
    if not isinstance(tree, dict | list):
        return []
    keys = list(tree) if isinstance(tree, dict) else list(range(len(tree)))
    return [(tree, key) for key in keys] + [p for key in keys for p in places(tree[key])]


@settings(max_examples=150)
@given(place=st.integers(0, 10**6), value=ODD)
def test_no_field_of_a_manifest_ends_in_another_error(
    tmp_path_factory: pytest.TempPathFactory, place: int, value: Any
) -> None:
    folder = tmp_path_factory.getbasetemp() / "odd"
    if not folder.exists():
        bench_models.write_folder(folder, ["slim.int8.tflite"])
        (folder / "good.json").write_bytes((folder / "manifest.json").read_bytes())
    manifest = json.loads((folder / "good.json").read_text())
    holder, key = places(manifest)[place % len(places(manifest))]
    holder[key] = value
    (folder / "manifest.json").write_text(json.dumps(manifest))
    try:
        verify_files(read_manifest(folder))
    except ManifestError as error:
        assert str(error).isprintable()


def test_links_and_names_do_not_lead_out_of_the_folder(tmp_path: Path) -> None:
    folder = bench_models.write_folder(tmp_path / "bundle", ["slim.float32.onnx"])
    model = folder / "slim.float32.onnx"
    model.rename(tmp_path / "elsewhere.onnx")
    model.symlink_to(tmp_path / "elsewhere.onnx")
    with pytest.raises(ManifestError, match=r"slim\.float32\.onnx is a link that leads out"):
        verify_files(read_manifest(folder))
    digest = hashlib.sha256((tmp_path / "elsewhere.onnx").read_bytes()).hexdigest()
    for line, why in ((f"{digest}  {model.name}", "leads out"), ("\xff", "not UTF-8")):
        (folder / "SHA256SUMS").write_bytes(line.encode("latin-1"))
        with pytest.raises(ManifestError, match=why):
            verify_sums(folder)
    for name in ("/etc/passwd", "a/../../b", "a\\b", "a\nb", "a\x00", ".", "x" * 300):
        (folder / "SHA256SUMS").write_text(f"{digest}  {name}\n")
        with pytest.raises(ManifestError):
            verify_sums(folder)


def npy(shape: tuple[int, ...], descr: str = "|u1", data: bytes = b"") -> bytes:
    """An .npy file whose header says anything."""
    stream = io.BytesIO()
    header = {"descr": descr, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, header)
    return stream.getvalue() + data


def packed(path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return path


@pytest.mark.parametrize(
    ("images", "why"),
    [
        (npy((10**6, 10**3, 10**3, 3)), "its shape has 3000000000000"),
        (npy((-1, 8, 8, 3)), "its shape"),
        (npy((1, 2, 2, 3), "|O", bytes(12)), "Python objects"),
        (b"\x93NUMPY\x01\x00\x76\x00" + b"(" * 118, "can't be read"),
    ],
)
def test_declared_sizes_are_checked_before_memory_is_taken(
    tmp_path: Path, images: bytes, why: str
) -> None:
    labels = npy((1,), "<i8", bytes(8))
    with pytest.raises(SamplesError, match=why):
        open_samples(packed(tmp_path / "s.npz", images=images, labels=labels))


def test_an_archive_that_unpacks_to_hundreds_of_times_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(npz, "_UNSUSPICIOUS_BYTES", 2**20)
    path = packed(tmp_path / "s.npz", images=npy((2**21, 1, 1, 1), data=bytes(2**21)))
    with pytest.raises(ValueError, match="unpacked it would be"):
        npz.read_headers(path)


def codebook(header: Any, data: bytes = b"", claimed: int | None = None) -> bytes:
    body_header = json.dumps(header).encode()
    body = struct.pack("<I", len(body_header)) + body_header + data
    size = len(body) if claimed is None else claimed
    head = b"CODEBOOK" + struct.pack("<IQ", 1, size) + hashlib.sha256(body).digest()
    return head + lzma.compress(body)


@settings(max_examples=150)
@given(
    entries=st.lists(
        st.fixed_dictionaries(
            {
                "name": st.text(max_size=3) | ODD,
                "dtype": st.sampled_from(["<f4", "|b1", "|O", "<f2"]) | ODD,
                "shape": st.lists(st.integers(-2, 5) | st.just(10**12), max_size=3) | ODD,
                "entries": st.integers(-2, 300) | ODD,
            }
        )
        | ODD,
        max_size=2,
    ),
    data=st.binary(max_size=20),
)
def test_any_description_of_a_codebook_file(
    tmp_path_factory: pytest.TempPathFactory, entries: list[Any], data: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.codebook"
    path.write_bytes(codebook({"tensors": entries}, data))
    try:
        state = read_codebook_file(path)
    except CodebookError:
        return
    assert sum(array.nbytes for array in state.values()) <= 64 * 8 * len(data)


@pytest.mark.parametrize(
    "make",
    [
        lambda: codebook({"tensors": []}, claimed=2**40),
        lambda: codebook({"tensors": []}, bytes(2**20)),
        lambda: codebook({"tensors": [[]] * 3}),
        # Python multiplies the text: fuzzing found 4 GiB of it
        lambda: codebook(
            {"tensors": [{"name": "a", "dtype": "<f4", "shape": [2**40, "x"], "entries": 0}]}
        ),
    ],
)
def test_codebook_files_that_claim_too_much(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[], bytes]
) -> None:
    monkeypatch.setattr(codebook_file, "_UNSUSPICIOUS_BYTES", 2**12)
    (tmp_path / "c").write_bytes(make())
    with pytest.raises(CodebookError):
        read_codebook_file(tmp_path / "c")
