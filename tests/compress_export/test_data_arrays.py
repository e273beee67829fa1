"""Arrays in .npz files and in folders of .npy files."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compress_export.data import ImageData, load_data
from compress_export.data.arrays import open_arrays
from compressor.errors import InputError


def images(count: int, seed: int = 0, shape: tuple[int, ...] = (8, 8, 3)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)


def numbers(count: int, classes: int = 2) -> np.ndarray:
    return np.arange(count) % classes


def save(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


def load(path: Path) -> ImageData:
    return load_data(str(path), input_size=8)


def test_one_pair_is_split(tmp_path: Path) -> None:
    x = images(40)
    data = load(save(tmp_path / "shapes.npz", x=x, y=numbers(40)))
    assert data.name == "shapes"
    assert data.classes == ("0", "1")
    sets = (data.train, data.validation, data.test)
    assert [len(part) for part in sets] == [29, 3, 8]
    labels = {pixels.tobytes(): i % 2 for i, pixels in enumerate(x.transpose(0, 3, 1, 2))}
    seen = {
        pixels.tobytes(): int(label)
        for part in sets
        for pixels, label in zip(part.read(np.arange(len(part))), part.labels, strict=True)
    }
    assert seen == labels


@pytest.mark.parametrize("names", ["{}_x {}_y", "x_{} y_{}", "{}_images {}_labels"])
def test_parts_go_by_the_names_that_others_use(tmp_path: Path, names: str) -> None:
    """Ours, Keras's and MedMNIST's, whose labels have a second axis."""
    arrays = {}
    for seed, (part, count) in enumerate({"train": 20, "val": 6, "test": 8}.items()):
        image_key, label_key = names.format(part, part).split()
        arrays |= {image_key: images(count, seed, (8, 8)), label_key: numbers(count)[:, None]}
    data = load(save(tmp_path / "a.npz", **arrays))
    for seed, image_set in enumerate((data.train, data.validation, data.test)):
        expected = images(len(image_set), seed, (8, 8))
        pixels = image_set.read(np.arange(len(image_set)))
        np.testing.assert_array_equal(pixels, np.repeat(expected[:, None], 3, axis=1))
        assert image_set.labels.tolist() == numbers(len(image_set)).tolist()


def test_classes_have_the_names_that_are_given(tmp_path: Path) -> None:
    named = save(tmp_path / "a.npz", x=images(20), y=numbers(20), classes=["left", "right"])
    assert load(named).classes == ("left", "right")
    texts = save(tmp_path / "b.npz", x=images(20), y=np.array(["dog", "cat"])[numbers(20)])
    data = load(texts)
    assert data.classes == ("cat", "dog")
    assert data.flip_allowed


def test_a_folder_of_npy_files_is_mapped_and_not_read(tmp_path: Path) -> None:
    for part, count in (("train", 20), ("test", 6)):
        np.save(tmp_path / f"{part}_x.npy", images(count, shape=(3, 8, 8)))
        np.save(tmp_path / f"{part}_y.npy", numbers(count))
    raw = open_arrays(tmp_path, seed=0)
    base = raw.train.images
    while base.base is not None and not isinstance(base, np.memmap):  # type: ignore[attr-defined]
        base = base.base  # type: ignore[attr-defined]
    assert isinstance(base, np.memmap)
    data = load(tmp_path)
    np.testing.assert_array_equal(data.test.read(np.arange(6)), images(6, shape=(3, 8, 8)))


def test_arrays_beyond_the_memory_are_read_batch_by_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.save(tmp_path / "x.npy", images(20))
    np.save(tmp_path / "y.npy", numbers(20))
    held = load(tmp_path)
    monkeypatch.setattr("compress_export.data.loading.MAX_MEMORY_BYTES", 0)
    mapped = load(tmp_path)
    assert held.train.held_bytes > mapped.train.held_bytes == 0
    order = np.array([3, 0, 5])
    np.testing.assert_array_equal(mapped.train.read(order), held.train.read(order))


class Payload:
    """Unpickling this would be seen."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return (Path.touch, (Path("unpickled"),))  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"x": images(9)}, "it holds x but no y"),
        ({"train_x": images(9), "train_y": numbers(9)}, "it holds train_x, train_y; expected"),
        ({"arr_0": images(9), "arr_1": numbers(9)}, "it holds arr_0, arr_1; expected"),
        ({"x": images(9) / 255, "y": numbers(9)}, "x must be uint8, 0 to 255, they are float64"),
        ({"x": images(9, shape=(8, 8, 4)), "y": numbers(9)}, "1 or 3 channels"),
        ({"x": images(9, shape=(0, 8, 3)), "y": numbers(9)}, "they have (9, 0, 8, 3)"),
        ({"x": images(9), "y": numbers(8)}, "y must be 9 class numbers"),
        ({"x": images(9), "y": numbers(9) / 1}, "they are float64"),
        ({"x": images(9), "y": np.eye(3)[numbers(9, 3)]}, "argmax(axis=1)"),
        ({"x": images(9), "y": numbers(9) + 1}, "counted from 1"),
        ({"x": images(9), "y": numbers(9, 3), "classes": ["a", "b"]}, "0 to 1 is allowed"),
        ({"x": images(9), "y": numbers(9) * 0}, "at least two classes"),
        ({"x": images(0), "y": numbers(0)}, "there are no images"),
        ({"x": images(9), "y": np.array([Payload()] * 9)}, "holds Python objects"),
    ],
)
def test_mistakes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arrays: dict[str, Any], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = save(tmp_path / "a.npz", **arrays)
    with pytest.raises(InputError) as caught:
        load(path)
    assert said in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == [path]


def test_damaged_files(tmp_path: Path) -> None:
    path = save(tmp_path / "a.npz", x=images(9), y=numbers(9))
    whole = path.read_bytes()
    for content in (b"", b"no arrays", whole[:300]):
        path.write_bytes(content)
        with pytest.raises(InputError, match="no arrays can be read"):
            load(path)
    spoilt = bytearray(whole)
    spoilt[400] ^= 0xFF  # a pixel: the checksum is off
    path.write_bytes(bytes(spoilt))
    with pytest.raises(InputError, match="can be read .Bad CRC"):
        load(path)
    np.savez_compressed(path, x=images(90) // 64, y=numbers(90))
    packed = bytearray(path.read_bytes())
    for start in range(200, 1200, 100):
        packed[start : start + 40] = bytes(40)
    path.write_bytes(bytes(packed))
    with pytest.raises(InputError, match="can be read .Error"):
        load(path)
    np.save(tmp_path / "x.npy", images(9))
    with pytest.raises(InputError, match="the folder that holds"):
        load(tmp_path / "x.npy")
