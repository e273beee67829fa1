"""Sources of images, and what `load_data` says about wrong ones."""

import pickle
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from compress_export.data import ImageData, load_data
from compress_export.data.folders import open_folder
from compressor.errors import InputError


def make_class(folder: Path, count: int, brightness: int, suffix: str = ".png") -> None:
    folder.mkdir(parents=True)
    for i in range(count):
        Image.new("RGB", (10, 8), (brightness, i, 0)).save(folder / f"{i:03}{suffix}")


def make_tree(root: Path, parts: dict[str, int], classes: tuple[str, ...] = ("cat", "dog")) -> Path:
    """`parts` maps the name of a part ('' for none) to its images per class."""
    for part, count in parts.items():
        for position, name in enumerate(classes):
            make_class(root / part / name, count, brightness=50 + 100 * position)
    return root


def load(spec: Path | str, **options: object) -> ImageData:
    return load_data(str(spec), **{"input_size": 8} | options)  # type: ignore[arg-type]


def keys(data: ImageData, part: str) -> set[tuple[int, int]]:
    """(brightness, number) of each image, as `make_class` painted it."""
    image_set = getattr(data, part)
    pixels, _ = image_set.batch(range(len(image_set)))
    return {(int(p[0, 4, 4]), int(p[1, 4, 4])) for p in pixels}


def test_digits_are_the_embedded_default() -> None:
    data = load_data("digits", input_size=32)
    assert len(data.train) + len(data.validation) + len(data.test) == 1797
    assert data.classes == tuple("0123456789")
    assert not data.flip_allowed
    assert data.skipped == ()
    pixels, labels = data.train.batch(range(50))
    assert pixels.shape == (50, 3, 32, 32)
    assert int(pixels.max()) > 230
    assert (pixels[:, 0] == pixels[:, 2]).all()
    assert labels.dtype.is_signed


def test_digits_have_the_same_test_images_under_every_seed() -> None:
    first, second = (load_data("digits", input_size=8, seed=seed) for seed in (0, 1))
    everything = range(len(first.test))
    assert (first.test.batch(everything)[0] == second.test.batch(everything)[0]).all()
    assert not np.array_equal(first.validation.labels, second.validation.labels)


def test_folder_with_train_and_test(tmp_path: Path) -> None:
    data = load(make_tree(tmp_path / "pets", {"train": 20, "test": 5}))
    assert data.name == "pets"
    assert data.classes == ("cat", "dog")
    assert (len(data.train), len(data.validation), len(data.test)) == (36, 4, 10)
    assert keys(data, "train").isdisjoint(keys(data, "validation"))
    assert {b for b, _ in keys(data, "test")} == {50, 150}
    assert data.flip_allowed
    pixels, labels = data.train.batch(range(len(data.train)))
    assert (pixels[:, 0, 4, 4].long() == 50 + 100 * labels).all()


def test_val_is_the_test_set_where_there_is_no_other(tmp_path: Path) -> None:
    data = load(make_tree(tmp_path, {"train": 10, "val": 3}))
    assert (len(data.train), len(data.validation), len(data.test)) == (18, 2, 6)


@pytest.mark.parametrize("val", ["val", "valid", "validation"])
def test_val_is_for_validation_beside_a_test_set(tmp_path: Path, val: str) -> None:
    data = load(make_tree(tmp_path, {"train": 10, val: 3, "test": 4}))
    assert (len(data.train), len(data.validation), len(data.test)) == (20, 6, 8)


def test_one_folder_is_split_with_the_seed(tmp_path: Path) -> None:
    make_tree(tmp_path, {"": 50})
    data, again, other = (load(tmp_path, seed=seed) for seed in (0, 0, 1))
    assert (len(data.train), len(data.validation), len(data.test)) == (72, 8, 20)
    assert np.bincount(data.test.labels).tolist() == [10, 10]
    parts = [keys(data, part) for part in ("train", "validation", "test")]
    assert len(set.union(*parts)) == 100
    assert keys(again, "test") == parts[2]
    assert keys(other, "test") != parts[2]


def test_classes_sort_as_torchvision_sorts_them_and_characters_are_not_mirrored(
    tmp_path: Path,
) -> None:
    from torchvision.datasets import ImageFolder

    make_tree(tmp_path / "a", {"": 10}, classes=("10", "9", "b"))
    assert load(tmp_path / "a").classes == tuple(ImageFolder(str(tmp_path / "a")).classes)
    make_tree(tmp_path / "b", {"": 10}, classes=("1", "2", "x"))
    assert not load(tmp_path / "b").flip_allowed


def test_images_at_any_depth_and_in_capitals_but_no_hidden_files(tmp_path: Path) -> None:
    make_tree(tmp_path, {"": 10})
    make_class(tmp_path / "cat" / "deep" / "er", 5, 50, suffix=".JPG")
    (tmp_path / "cat" / "._000.png").write_bytes(b"what macOS leaves behind")
    (tmp_path / "cat" / "notes.txt").write_text("no image")
    make_class(tmp_path / "dog" / ".ipynb_checkpoints", 2, 50)  # Jupyter's copies
    make_class(tmp_path / "__MACOSX", 2, 50)
    (tmp_path / "dog" / "folder.png").mkdir()
    (tmp_path / ".cache").mkdir()
    data = load(tmp_path)
    assert data.classes == ("cat", "dog")
    assert len(data.train) + len(data.validation) + len(data.test) == 25


def test_a_stranger_s_folder_is_read_as_torchvision_reads_it(tmp_path: Path) -> None:
    """Odd names, sizes and kinds of images, nested folders, one file cut off."""
    from torchvision.datasets import ImageFolder

    kinds = [("RGB", "JPG"), ("L", "png"), ("RGBA", "PNG"), ("P", "bmp"), ("CMYK", "jpeg")]
    noise = np.random.default_rng(0)
    for name in ("Käse & Brot", "ship [b]", "猫"):
        (tmp_path / name / "more (1)").mkdir(parents=True)
        for i in range(40):
            mode, suffix = kinds[i % len(kinds)]
            pixels = noise.integers(0, 256, (*noise.integers(3, 40, 2), 3), dtype=np.uint8)
            folder = tmp_path / name / ("more (1)" if i % 3 else "")
            Image.fromarray(pixels).convert(mode).save(folder / f"é {i}'s.{suffix}")
    cut = tmp_path / "猫" / "é 0's.JPG"
    cut.write_bytes(cut.read_bytes()[:-9])
    raw = open_folder(tmp_path, seed=0)
    pairs = {
        str(path): label
        for part in (raw.train, raw.test)
        for path, label in zip(part.images, part.labels, strict=True)
    }
    assert pairs == dict(ImageFolder(str(tmp_path)).samples)
    data = load(tmp_path)
    assert data.skipped == (str(cut),)
    assert len(data.train) + len(data.validation) + len(data.test) == 119


def test_progress_counts_every_image_once(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    load(
        make_tree(tmp_path, {"train": 10, "test": 5}),
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen[-1] == (30, 30)
    assert [d for d, _ in seen] == sorted(d for d, _ in seen)


def spoil(folder: Path, count: int) -> None:
    for path in sorted(folder.glob("*.png"))[:count]:
        path.write_bytes(path.read_bytes()[:40])


def test_a_few_broken_images_are_skipped_and_named(tmp_path: Path) -> None:
    make_tree(tmp_path, {"train": 80, "test": 20})
    spoil(tmp_path / "train" / "dog", 1)
    spoil(tmp_path / "test" / "cat", 1)
    data = load(tmp_path)  # 2 of 200 is 1 %, and that is still allowed
    assert len(data.test) == 39
    assert len(data.train) + len(data.validation) == 159
    assert sorted(Path(name).relative_to(tmp_path).parts for name in data.skipped) == [
        ("test", "cat", "000.png"),
        ("train", "dog", "000.png"),
    ]
    assert (150, 0) not in keys(data, "train") | keys(data, "validation")


def mistake(spec: Path | str, **options: object) -> str:
    with pytest.raises(InputError) as caught:
        load(spec, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_more_than_one_percent_broken_is_fatal(tmp_path: Path) -> None:
    make_tree(tmp_path, {"train": 80, "test": 20})
    spoil(tmp_path / "train" / "dog", 3)
    message = mistake(tmp_path)
    assert "3 of 200 images (1.5%)" in message
    assert str(tmp_path / "train" / "dog" / "000.png") in message


def test_any_number_of_broken_images_is_left_out_where_that_is_wanted(tmp_path: Path) -> None:
    make_tree(tmp_path, {"train": 80, "test": 20})
    spoil(tmp_path / "train" / "dog", 30)
    assert "--skip-broken leaves them out" in mistake(tmp_path)
    data = load(tmp_path, skip_broken=True)
    assert len(data.train) + len(data.validation) == 130
    assert data.remarks[0].startswith("30 broken images were left out: ")
    spoil(tmp_path / "train" / "dog", 80)
    assert "class 'dog' has 0 usable training images" in mistake(tmp_path, skip_broken=True)


def test_strict_allows_none(tmp_path: Path) -> None:
    make_tree(tmp_path, {"train": 80, "test": 20})
    spoil(tmp_path / "train" / "dog", 1)
    assert "--strict" in mistake(tmp_path, strict=True)


def test_two_images_without_classes_leave_none_to_train_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of them is put aside for validation, and a batch of one is left out."""
    (tmp_path / "tiny_sets.py").write_text(
        "import numpy as np\n"
        "def part(n): return np.zeros((n, 8, 8, 3), np.uint8), np.linspace(0, 1, n)\n"
        "def two(): return part(2), part(1), ('mean',)\n"
        "def three(): return part(3), part(1), ('mean',)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match="1 training image is left beside 1 put aside"):
        load("tiny_sets:two")
    assert len(load("tiny_sets:three").train) == 2


def test_mistakes_with_folders(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "no class folders" in mistake(tmp_path / "empty")
    make_class(tmp_path / "loose", 3, 50)
    assert "3 images lie in it directly" in mistake(tmp_path / "loose")
    make_tree(tmp_path / "single", {"": 3}, classes=("cat",))
    assert "only one class folder" in mistake(tmp_path / "single")
    make_tree(tmp_path / "untested", {"train": 3})
    assert "neither test/ nor val/" in mistake(tmp_path / "untested")
    make_tree(tmp_path / "hollow", {"train": 3, "test": 3})
    (tmp_path / "hollow" / "train" / "emu").mkdir()
    assert "class 'emu' has no images" in mistake(tmp_path / "hollow")
    make_tree(tmp_path / "lacking", {"train": 3}, classes=("cat", "dog", "emu"))
    make_tree(tmp_path / "lacking", {"test": 3})
    assert "class 'emu' has no images" in mistake(tmp_path / "lacking")
    make_tree(tmp_path / "strange", {"train": 3})
    make_tree(tmp_path / "strange", {"test": 3}, classes=("cat", "dog", "emu"))
    assert "'emu' does not occur among the training" in mistake(tmp_path / "strange")


def test_classes_too_small_to_split(tmp_path: Path) -> None:
    for count in (1, 2):
        message = mistake(make_tree(tmp_path / str(count), {"": count}))
        assert f"class 'cat' has {count} images; at least 3 are needed" in message
    make_tree(tmp_path / "parts", {"train": 1, "test": 1})
    assert "put aside for validation" in mistake(tmp_path / "parts")


@pytest.mark.parametrize("count", [3, 5])
def test_a_few_images_per_class_reach_every_part(tmp_path: Path, count: int) -> None:
    data = load(make_tree(tmp_path, {"": count}))
    for part in (data.train, data.validation, data.test):
        assert np.bincount(part.labels, minlength=2).min() >= 1
    assert len(data.train) + len(data.validation) + len(data.test) == 2 * count


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("./no/such/folder", "no such folder"),
        ("pictures/cats", "no such folder"),
        ("cifar11", "did you mean .*CIFAR10"),
        ("digit", "did you mean digits"),
        ("CIFAR10", "--data-root"),
        ("VOCSegmentation", "can't be opened by name|not found"),
        ("Caltech101", "not found under data .there is no such folder.; .*--data-root"),
        ("CocoDetection", "can't be opened by name .it needs annFile, too.; write a function"),
        ("pictures.csv", "no such file"),
    ],
)
def test_unknown_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spec: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert re.search(said, mistake(spec))
    assert not list(tmp_path.iterdir())


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "cifar.tar.gz").write_bytes(b"")
    assert "unpack it" in mistake(tmp_path / "cifar.tar.gz")


@pytest.mark.parametrize("options", [{"input_size": 0}, {"validation_share": 1.0}])
def test_options_out_of_range(options: dict) -> None:
    assert str(next(iter(options.values()))).rstrip(".0") in mistake("digits", **options)


def write_cifar(root: Path, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """Files in CIFAR-10's own layout, 20 images in each of its six parts; its checksums are off."""
    from torchvision.datasets import CIFAR10

    monkeypatch.setattr(CIFAR10, "_check_integrity", lambda self: True)
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *args: True)
    folder = root / CIFAR10.base_folder
    folder.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (20, 3072), dtype=np.uint8)
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
        content = {"data": pixels, "labels": [i % 10 for i in range(20)]}
        (folder / name).write_bytes(pickle.dumps(content))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list("abcdefghij")}))
    return pixels.reshape(20, 3, 32, 32)


def test_torchvision_dataset_with_train_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = write_cifar(tmp_path, monkeypatch)
    data = load("cifar10", input_size=32, data_root=tmp_path)
    assert data.name == "CIFAR10"
    assert data.classes == tuple("abcdefghij")
    assert (len(data.train), len(data.validation), len(data.test)) == (90, 10, 20)
    assert data.flip_allowed
    np.testing.assert_array_equal(data.test.read(np.arange(20)), pixels)
    assert data.test.labels.tolist() == [i % 10 for i in range(20)]


def test_torchvision_dataset_without_parts(tmp_path: Path) -> None:
    """EuroSAT has no parts; torchvision reads it as a folder of class folders."""
    make_tree(tmp_path / "eurosat" / "2750", {"": 10}, classes=("Forest", "River"))
    data = load("EuroSAT", data_root=tmp_path)
    assert data.classes == ("Forest", "River")
    assert (len(data.train), len(data.validation), len(data.test)) == (14, 2, 4)
    assert keys(data, "train").isdisjoint(keys(data, "test"))


def test_torchvision_dataset_with_splits(tmp_path: Path) -> None:
    """RenderedSST2 has three parts and keeps its labels beside the paths."""
    for split, count in (("train", 10), ("valid", 2), ("test", 3)):
        make_tree(tmp_path / "rendered-sst2" / split, {"": count}, classes=("negative", "positive"))
    data = load("renderedsst2", data_root=tmp_path)
    assert data.classes == ("negative", "positive")
    assert (len(data.train), len(data.validation), len(data.test)) == (18, 2, 6)
    assert not data.flip_allowed
    assert {b for b, _ in keys(data, "test")} == {50, 150}


USER_DATA = """
import numpy as np
def images(count, shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)
labels = np.arange(40) % 2
test = images(4, (8, 8, 3)), labels[:4]
names = ["left", "right"]
def nhwc(): return (images(40, (8, 8, 3)), labels), (images(10, (8, 8, 3), 1), labels[:10]), names
def nchw():
    (a, la), (b, lb), names = nhwc()
    return (a.transpose(0, 3, 1, 2), la), (b.transpose(0, 3, 1, 2), lb.tolist()), names
def grey(): return (images(40, (8, 8)), labels), (images(10, (8, 8)), labels[:10]), names
def floats(): return (images(40, (8, 8, 3)) / 255, labels), test, names
def shape(): return (images(40, (3, 8, 8, 3)), labels), test, names
def short(): return (images(40, (8, 8, 3)), labels[:7]), test, names
def beyond(): return (images(40, (8, 8, 3)), labels + 1), test, names
def two(): return images(40, (8, 8, 3)), labels
def empty(): return (images(40, (8, 8, 3)), labels), (images(0, (8, 8, 3)), labels[:0]), names
def lines(): return (images(40, (8, 8, 3)), labels), test, ["up\\nper", "lower"]
def digits(): return (images(40, (8, 8, 3)), labels), test, ["0", "1"]
def fails(): raise FileNotFoundError("no disk\\nsecond line")
"""


@pytest.fixture
def user_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "user_images.py").write_text(USER_DATA)
    return "user_images"


def test_characters_of_a_function_are_not_mirrored_either(user_module: str) -> None:
    assert load(f"{user_module}:nhwc").flip_allowed
    assert not load(f"{user_module}:digits").flip_allowed


def test_function_with_either_layout(user_module: str) -> None:
    nhwc, nchw = load(f"{user_module}:nhwc"), load(f"{user_module}:nchw")
    assert nhwc.classes == ("left", "right")
    assert (len(nhwc.train), len(nhwc.validation), len(nhwc.test)) == (36, 4, 10)
    np.testing.assert_array_equal(nhwc.test.read(np.arange(10)), nchw.test.read(np.arange(10)))
    expected = np.random.default_rng(1).integers(0, 256, (10, 8, 8, 3), dtype=np.uint8)
    np.testing.assert_array_equal(nhwc.test.read(np.arange(10)), expected.transpose(0, 3, 1, 2))
    assert load(f"{user_module}:grey").train.read(np.arange(2)).shape == (2, 3, 8, 8)


@pytest.mark.parametrize(
    ("function", "said"),
    [
        ("floats", "must be uint8"),
        ("shape", "must have the shape"),
        ("short", "must be 40 integers"),
        ("beyond", "0 to 1 is allowed"),
        ("two", "it must return"),
        ("empty", "0 usable test images"),
        ("fails", "FileNotFoundError: no disk"),
        ("nowhere", "has no function"),
        ("lines", "can't be written as a line of UTF-8 text"),
    ],
)
def test_mistakes_with_functions(user_module: str, function: str, said: str) -> None:
    assert said in mistake(f"{user_module}:{function}")
