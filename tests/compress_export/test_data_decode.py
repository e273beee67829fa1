"""Decoding: every kind of image becomes the same picture, and broken ones are found."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from compress_export.data.decode import check_image, decode_all, decode_image

RED, GREEN = (250, 10, 20), (30, 220, 40)


def halves(mode: str = "RGB", size: int = 16) -> Image.Image:
    """Left half red, right half green."""
    image = Image.new("RGB", (size, size), RED)
    image.paste(GREEN, (size // 2, 0, size, size))
    if mode == "P":  # a palette made for this image, which therefore loses nothing
        return image.convert("P", palette=Image.Palette.ADAPTIVE, colors=4)
    return image.convert(mode)


def assert_halves(pixels: np.ndarray) -> None:
    assert pixels.shape == (3, 16, 16)
    assert pixels.dtype == np.uint8
    assert tuple(pixels[:, 8, 2]) == RED
    assert tuple(pixels[:, 8, 13]) == GREEN


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "CMYK"])
def test_colour_modes(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("image.tif" if mode == "CMYK" else "image.png")
    halves(mode).save(path)
    assert_halves(decode_image(path, 16))


def test_palette_with_transparency_gives_no_warning(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    halves("P").save(tmp_path / "p.png", transparency=bytes([0, 128, 255]))
    decode_image(tmp_path / "p.png", 16)
    assert not recwarn.list


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bit_grey_is_scaled_not_clipped(tmp_path: Path, suffix: str) -> None:
    deep = np.array([[0, 255], [40_000, 65_535]], dtype=np.uint16)
    Image.fromarray(deep).save(tmp_path / f"deep.{suffix}")
    expected = deep >> 8
    for channel in decode_image(tmp_path / f"deep.{suffix}", 2):
        np.testing.assert_array_equal(channel, expected)


def test_floating_point_images_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.ones((4, 4), dtype=np.float32)).save(tmp_path / "f.tif")
    with pytest.raises(ValueError, match="range"):
        decode_image(tmp_path / "f.tif", 4)
    with pytest.raises(ValueError, match="range"):
        check_image(tmp_path / "f.tif")


def test_the_first_frame_counts(tmp_path: Path) -> None:
    upside_down = halves().rotate(180)
    for name in ("frames.gif", "frames.png", "frames.tif"):
        halves("P").save(tmp_path / name, save_all=True, append_images=[upside_down])
        assert_halves(decode_image(tmp_path / name, 16))


def test_names_that_are_no_utf8_can_be_printed(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png"))
    path.write_bytes(b"")
    (broken,) = decode_all([path], 8, None, lambda count: None)
    assert broken.name.encode().endswith("caf\N{REPLACEMENT CHARACTER}.png".encode())


@pytest.mark.parametrize("width_height", [(1100, 900), (1301, 515), (64, 64)])
def test_large_jpegs_are_decoded_at_a_fraction_and_look_the_same(
    tmp_path: Path, width_height: tuple[int, int]
) -> None:
    """Against decoding the whole image, on shapes without detail finer than the result's."""
    random = np.random.default_rng(0)
    coarse = Image.fromarray(random.integers(0, 256, (6, 6, 3), dtype=np.uint8))
    path = tmp_path / "large.jpg"
    coarse.resize(width_height, Image.Resampling.BICUBIC).save(path, quality=95, subsampling=0)
    with Image.open(path) as whole:
        expected = decode_image(whole.convert("RGB"), 32)
    difference = decode_image(path, 32).astype(int) - expected
    assert np.abs(difference).mean() < 1.0
    assert np.abs(difference).max() <= 4


def test_grey_arrays_become_three_equal_channels() -> None:
    grey = np.arange(64, dtype=np.uint8).reshape(8, 8)
    for array in (grey, grey[..., None]):
        np.testing.assert_array_equal(decode_image(array, 8), np.stack([grey] * 3))


def test_exif_rotation_is_applied(tmp_path: Path) -> None:
    """A camera held sideways: pixels stored rotated, with tag 274 saying how to turn them back."""
    stored = halves().transpose(Image.Transpose.ROTATE_90)  # undone by turning clockwise: 6
    exif = Image.Exif()
    exif[274] = 6
    stored.save(tmp_path / "turned.png", exif=exif)
    assert_halves(decode_image(tmp_path / "turned.png", 16))


@pytest.mark.parametrize("width_height", [(40, 23), (23, 40), (17, 16), (9, 12), (100, 33)])
def test_resize_and_crop_are_torchvision_s(width_height: tuple[int, int]) -> None:
    width, height = width_height
    random = np.random.default_rng(0)
    image = Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8))
    oracle = v2.Compose([v2.Resize(16), v2.CenterCrop(16), v2.PILToTensor()])
    np.testing.assert_array_equal(decode_image(image, 16), oracle(image).numpy())


def test_shrinking_is_antialiased() -> None:
    """A one-pixel chequerboard averages to grey; plain interpolation would leave black or white."""
    board = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    inner = decode_image(board, 8)[:, 2:-2, 2:-2].astype(int)
    assert np.abs(inner - 127).max() <= 3


def test_decode_all_finds_the_broken_ones_and_keeps_the_rest_in_place(tmp_path: Path) -> None:
    items = []
    for i in range(300):  # more than one chunk of work
        items.append(tmp_path / f"{i:03}.jpg")
        Image.new("RGB", (8, 8), (i % 256, 0, 0)).save(items[-1], quality=100)
    items[5].write_bytes(b"no image")
    whole = items[260].read_bytes()
    items[260].write_bytes(whole[:-60])
    items[270].write_bytes(b"")
    done: list[int] = []
    out = np.zeros((300, 3, 8, 8), dtype=np.uint8)
    broken = decode_all(items, 8, out, done.append)
    assert [b.row for b in broken] == [5, 260, 270]
    assert broken[0].name == str(items[5])
    assert "known format" in broken[0].reason
    assert "truncated" in broken[1].reason.lower()
    assert broken[2].reason == "the file is empty"
    assert sum(done) == 300
    good = np.setdiff1d(np.arange(300), [5, 260, 270])
    np.testing.assert_allclose(out[good, 0, 4, 4], good % 256, atol=2)  # JPEG is not exact
    assert [b.row for b in decode_all(items, 8, None, done.append)] == [5, 260, 270]


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "gif", "bmp"])
def test_check_finds_what_decoding_finds(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"image.{suffix}"
    noise = torch.randint(0, 256, (64, 64, 3), dtype=torch.uint8, generator=torch.manual_seed(0))
    Image.fromarray(noise.numpy()).save(path)
    check_image(path)
    path.write_bytes(path.read_bytes()[:1500])
    with pytest.raises(Exception, match="."):
        decode_image(path, 16)
    with pytest.raises(Exception, match="."):
        check_image(path)
