"""Images, arrays and lists from elsewhere: bounded, and no program is started for them."""

from __future__ import annotations

import io
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from compress_export.data import decode
from compress_export.data.arrays import open_arrays
from compress_export.data.decode import decode_all, decode_image
from compress_export.data.lists import open_list
from compress_export.data.torchvision_sets import dataset_names
from compressor.errors import InputError


def saved(picture: Image.Image, format: str) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, format)
    return stream.getvalue()


def reason(path: Path, size: int = 32) -> str:
    """Why an image is broken; it has to be both where it is checked and where it is decoded."""
    out = np.empty((1, 3, size, size), np.uint8)
    (broken,) = decode_all([path], size, out, lambda count: None)
    return broken.reason


def test_no_other_program_decodes_an_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow would give PostScript to Ghostscript, whatever the file is called."""
    path = tmp_path / "cat.jpg"
    path.write_bytes(saved(Image.new("RGB", (8, 8)), "EPS"))
    started: list[Any] = []
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: started.append(a))
    assert reason(path) == "not an image in a known format"
    assert started == []


def test_images_of_too_many_pixels_are_not_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decode, "_MOST_PIXELS", 10_000)
    for name, size, why in (
        ("large.png", (101, 100), "101 x 100 pixels, at most 10000"),
        ("long.png", (1000, 2), "one side too long"),
    ):
        Image.new("L", size).save(tmp_path / name)
        assert why in reason(tmp_path / name)
    Image.new("RGB", (800, 800)).save(tmp_path / "large.jpg")  # decoded at an eighth: 100 x 100
    monkeypatch.setattr(decode, "_SMALLEST_DRAFT", 1)
    assert decode_image(tmp_path / "large.jpg", 8).shape == (3, 8, 8)


GOOD = {
    format: saved(Image.effect_noise((9, 7), 40).convert("RGB"), format)
    for format in decode.FORMATS
}


@settings(max_examples=120)
@given(
    format=st.sampled_from(decode.FORMATS),
    place=st.floats(0, 0.999),
    put=st.binary(max_size=6),
    length=st.floats(0.05, 1),
)
def test_a_damaged_image_is_decoded_or_named(
    tmp_path_factory: pytest.TempPathFactory, format: str, place: float, put: bytes, length: float
) -> None:
    content = bytearray(GOOD[format])
    start = int(place * len(content))
    content[start : start + len(put)] = put
    path = tmp_path_factory.getbasetemp() / "damaged.img"
    path.write_bytes(bytes(content[: int(length * len(content))]))
    decode_all([path], 8, np.empty((1, 3, 8, 8), np.uint8), lambda count: None)


def test_arrays_that_say_more_than_they_hold(tmp_path: Path) -> None:
    def npy(shape: tuple[int, ...]) -> bytes:
        stream = io.BytesIO()
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(stream, header)
        return stream.getvalue() + bytes(8)

    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", npy((10**6, 10**4, 10**3)))
        archive.writestr("y.npy", npy((8,)))
    with pytest.raises(InputError, match="its shape has"):
        open_arrays(path, 0)
    np.savez(path, x=np.array([{}], object), y=np.zeros(1))
    with pytest.raises(InputError, match="Python objects"):
        open_arrays(path, 0)
    (tmp_path / "x.npy").write_bytes(npy((10**6, 10**4, 10**3)))
    (tmp_path / "y.npy").write_bytes(npy((8,)))
    path.unlink()
    with pytest.raises(InputError, match="no arrays can be read"):
        open_arrays(tmp_path, 0)


@pytest.mark.parametrize("order", "<>")
def test_text_of_characters_that_do_not_exist(tmp_path: Path, order: str) -> None:
    """Numpy makes broken strings of it, as fuzzing found."""
    names = np.array([65, 0x110000] * 3, f"{order}u4").view(f"{order}U1")
    x = np.zeros((6, 4, 4), np.uint8)
    for arrays in ({"y": names}, {"y": np.arange(6) % 2, "classes": names}, {"y": [b"\xff"] * 6}):
        np.savez(tmp_path / "a.npz", x=x, **arrays)
        with pytest.raises(InputError, match="can't be read"):
            open_arrays(tmp_path / "a.npz", 0)
    np.savez(tmp_path / "a.npz", x=x, y=np.array(["é", "ü"] * 3, f"{order}U1"))
    assert open_arrays(tmp_path / "a.npz", 0).classes == ("é", "ü")


@settings(max_examples=150)
@given(st.text('path,label\n;\t"ab/.0123\x00é' + "9" * 3, max_size=80))
def test_any_list_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "any.csv"
    path.write_text(f"path,label\n{text}", newline="")
    with pytest.raises(InputError):
        open_list(path, 0)


@pytest.mark.parametrize("label", ["9" * 5000, "9" * 19, "1" * 18])
def test_labels_of_many_digits(tmp_path: Path, label: str) -> None:
    (tmp_path / "a.png").touch()
    (tmp_path / "b.png").touch()
    path = tmp_path / "list.csv"
    path.write_text(f"path,label\na.png,{label}\nb.png,0\n")
    with pytest.raises(InputError):
        open_list(path, 0)


def test_datasets_that_unpickle_are_not_offered() -> None:
    assert "lsun" not in dataset_names()
    assert "cifar10" in dataset_names()  # unpickles what has the published checksum
