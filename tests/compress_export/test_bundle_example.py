"""The bundle's example sees an image as training does, whatever kind of file it is."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image

from boards import load_board
from compress_export.data.decode import decode_image
from compress_export.data.preprocessing import Preprocessing
from exporters import write_bundle

PREPROCESSING = Preprocessing(size=24, mean=(0.5, 0.4, 0.3), std=(0.25, 0.2, 0.3))


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    """example.py of a written bundle."""
    folder = tmp_path_factory.mktemp("bundle")
    write_bundle(
        folder,
        (),
        board=load_board("x86-64"),
        model="any",
        classes=["one"],
        input_shape=(3, PREPROCESSING.size, PREPROCESSING.size),
        preprocessing=PREPROCESSING.to_json(),
    )
    spec = importlib.util.spec_from_file_location("bundle_example", folder / "example.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def noise(height: int, width: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)


def deep_grey(path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 65_536, (30, 40), dtype=np.uint16)
    Image.fromarray(values).save(path)


def turned(path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6  # a camera held sideways
    Image.fromarray(noise(30, 40)).save(path, exif=exif)


def palette_with_alpha(path: Path) -> None:
    image = Image.fromarray(noise(30, 40)).convert("P", palette=Image.Palette.ADAPTIVE)
    image.save(path, transparency=bytes(range(256)))


FILES = {
    "grey16.png": deep_grey,
    "grey16.tif": deep_grey,
    "grey8.png": lambda path: Image.fromarray(noise(30, 40)).convert("L").save(path),
    "rgba.png": lambda path: Image.fromarray(noise(30, 40, 4)).save(path),
    "palette.png": palette_with_alpha,
    "cmyk.jpg": lambda path: Image.fromarray(noise(30, 40)).convert("CMYK").save(path),
    "turned.jpg": turned,
    "tall.png": lambda path: Image.fromarray(noise(61, 25)).save(path),
    "large.jpg": lambda path: Image.fromarray(noise(7, 9)).resize((900, 700)).save(path),
    "same.png": lambda path: Image.fromarray(noise(24, 24)).save(path),
}


@pytest.mark.parametrize("name", FILES)
def test_images_are_decoded_as_in_training(example: ModuleType, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    FILES[name](path)
    size = PREPROCESSING.size
    expected = decode_image(path, size)  # (3, H, W)
    assert len(np.unique(expected)) > 20  # not clipped to nothing
    found = example.decode(str(path), size, (size, size))
    np.testing.assert_array_equal(found, expected.transpose(1, 2, 0))

    manifest = {
        "preprocessing": PREPROCESSING.to_json(),
        "input": {"channels": 3, "height": size, "width": size},
    }
    normal = PREPROCESSING.normalize(torch.from_numpy(expected.copy())[None])
    pixels = example.load_image(str(path), manifest)
    values = example.to_input(
        pixels, {"layout": "NHWC", "dtype": "float32"}, manifest["preprocessing"]
    )
    assert values.shape == (1, size, size, 3) and values.dtype == np.float32
    np.testing.assert_allclose(values, normal.permute(0, 2, 3, 1).numpy(), atol=1e-5)


def test_floating_point_images_are_refused_in_one_line(example: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "float.tif"
    Image.fromarray(np.ones((4, 4), np.float32)).save(path)
    with pytest.raises(SystemExit, match="no agreed range"):
        example.decode(str(path), 4, (4, 4))
