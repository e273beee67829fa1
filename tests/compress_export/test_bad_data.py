"""Bad data, through the command line: code 2, one exact line, and nothing half-written.

`docs/data.md` lists these messages. What a board, weights or options can be wrong about is in
test_user_mistakes.py.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_jobs import run_here

TINY = ["--board", "jetson", "--model", "tiny_networks:two_blocks", "--input-size", "8"]


def pictures(folder: Path, count: int) -> None:
    folder.mkdir(parents=True)
    noise = np.random.default_rng(0)
    for number in range(count):
        pixels = noise.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")


def pets(root: Path, cats: int = 10, dogs: int = 10) -> Path:
    pictures(root / "cat", cats)
    pictures(root / "dog", dogs)
    return root


def listed(folder: Path, header: str, rows: list[str]) -> Path:
    """A list of the images of `pets`."""
    pets(folder / "pets")
    path = folder / "pets.csv"
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


ROWS = [f"pets/{name}/{i}.png,{name}" for name in ("cat", "dog") for i in range(10)]


def arrays(folder: Path, **changed: np.ndarray) -> Path:
    x, y = np.zeros((20, 8, 8, 3), dtype=np.uint8), np.arange(20) % 2
    np.savez(folder / "pets.npz", **({"x": x, "y": y} | changed))
    return folder / "pets.npz"


def no_such_folder(here: Path) -> str:
    pets(here / "pets")
    return "pets/train/cat"


def images_without_classes(here: Path) -> str:
    pictures(here / "pets", 3)
    return "pets"


def one_class(here: Path) -> str:
    pictures(here / "pets" / "cat", 5)
    return "pets"


def class_without_images(here: Path) -> str:
    pets(here / "pets", dogs=0)
    return "pets"


def training_images_only(here: Path) -> str:
    pets(here / "pets" / "train")
    return "pets"


def class_only_in_test(here: Path) -> str:
    pets(here / "pets" / "train")
    pets(here / "pets" / "test")
    pictures(here / "pets" / "test" / "emu", 2)
    return "pets"


def two_images_in_a_class(here: Path) -> str:
    pets(here / "pets", dogs=2)
    return "pets"


def one_training_image_in_a_class(here: Path) -> str:
    pets(here / "pets" / "train", dogs=1)
    pets(here / "pets" / "test")
    return "pets"


def class_whose_images_are_all_broken(here: Path) -> str:
    pets(here / "pets" / "train", cats=300, dogs=2)
    pets(here / "pets" / "test", cats=10, dogs=2)
    for i in range(2):
        (here / "pets" / "train" / "dog" / f"{i}.png").write_bytes(b"")
    return "pets"


def web_pages_instead_of_images(here: Path) -> str:
    pets(here / "pets")
    for path in (here / "pets" / "dog").iterdir():
        path.write_text("<html>404 Not Found</html>")
    return "pets"


def archive(here: Path) -> str:
    (here / "pets.zip").write_bytes(b"PK")
    return "pets.zip"


def no_such_list(here: Path) -> str:
    return "pets.csv"


def list_without_header(here: Path) -> str:
    return listed(here, ROWS[0], ROWS[1:]).name


def list_of_files_elsewhere(here: Path) -> str:
    return listed(here, "path,label", [row.removeprefix("pets/") for row in ROWS]).name


def list_with_an_image_twice(here: Path) -> str:
    return listed(here, "path,label", [*ROWS, "pets/cat/3.png,dog"]).name


def list_with_an_unknown_split(here: Path) -> str:
    return listed(here, "path,label,split", [f"{row},holdout" for row in ROWS]).name


def list_counted_from_1(here: Path) -> str:
    rows = [row.replace(",cat", ",1").replace(",dog", ",2") for row in ROWS]
    return listed(here, "path,label", rows).name


def arrays_without_labels(here: Path) -> str:
    np.savez(here / "pets.npz", x=np.zeros((20, 8, 8, 3), dtype=np.uint8))
    return "pets.npz"


def arrays_of_fractions(here: Path) -> str:
    return arrays(here, x=np.zeros((20, 8, 8, 3), dtype=np.float32)).name


def arrays_with_one_hot_labels(here: Path) -> str:
    return arrays(here, y=np.eye(2)[np.arange(20) % 2]).name


def arrays_cut_short(here: Path) -> str:
    path = arrays(here)
    path.write_bytes(path.read_bytes()[:1000])
    return path.name


def arrays_with_pickled_objects(here: Path) -> str:
    return arrays(here, y=np.array(["cat", None] * 10, dtype=object)).name


def dataset_that_is_not_there(here: Path) -> str:
    return "CIFAR10"


def dataset_that_is_no_classification(here: Path) -> str:
    return "CocoDetection"


# mistake -> its message, HERE for the folder in which the command runs
MESSAGES: dict[Callable[[Path], str], str] = {
    no_such_folder: "data 'pets/train/cat': no such folder; HERE/pets exists and holds no 'train'",
    images_without_classes: "data pets: no class folders; 3 images lie in it directly; one "
    "sub-folder per class is expected, at least two",
    one_class: "data pets: only one class folder; one sub-folder per class is expected, at least "
    "two",
    class_without_images: "data pets: class 'dog' has no images (.bmp, .gif, .jpeg, .jpg, .pbm, "
    ".pgm, .png, .ppm, .tif, .tiff, .webp are looked for)",
    training_images_only: "data pets: there is train/ but neither test/ nor val/; add one, or give "
    "the folder pets/train to have a part of it put aside for testing",
    class_only_in_test: "data pets/test: class 'emu' does not occur among the training images",
    two_images_in_a_class: "data pets: class 'dog' has 2 images; at least 3 are needed, one each "
    "for training, validation and test",
    one_training_image_in_a_class: "data 'pets': class 'dog' has 1 usable training images; at "
    "least 2 needed, since one of them is put aside for validation",
    class_whose_images_are_all_broken: "data 'pets': class 'dog' has 0 usable training images; at "
    "least 2 needed, since one of them is put aside for validation",
    web_pages_instead_of_images: "data 'pets': 10 of 20 images (50.0%) can't be decoded, at most "
    "1% may be; the first is pets/dog/0.png (not an image in a known format); --skip-broken leaves "
    "them out",
    archive: "data 'pets.zip' is a file, but no .csv, .tsv, .npz; unpack it and give the folder",
    no_such_list: "data 'pets.csv': no such file; HERE exists and holds no 'pets.csv'",
    list_without_header: "data pets.csv: the first line has to name the columns path and label, "
    "with commas, semicolons or tabs between; it is 'pets/cat/0.png,cat'",
    list_of_files_elsewhere: "data pets.csv: 20 of 20 files are not there; the first is cat/0.png "
    "(line 2); relative paths start at the list's folder",
    list_with_an_image_twice: "data pets.csv: pets/cat/3.png is listed twice, in the lines 5 and "
    "22",
    list_with_an_unknown_split: "data pets.csv, line 2: split 'holdout' is not train, val or test",
    list_counted_from_1: "data pets.csv: labels that are integers have to be the class numbers 0 "
    "to 2, but no image has the label 0; are they counted from 1?",
    arrays_without_labels: "data pets.npz: it holds x but no y",
    arrays_of_fractions: "data pets.npz: x must be uint8, 0 to 255, they are float32",
    arrays_with_one_hot_labels: "data pets.npz: y must be 20 class numbers or names, one per "
    "image; they are float64 of shape (20, 2); one-hot labels become numbers by argmax(axis=1)",
    arrays_cut_short: "data pets.npz: no arrays can be read (File is not a zip file)",
    arrays_with_pickled_objects: "data pets.npz: no arrays can be read (y.npy holds Python "
    "objects, or values of no size)",
    dataset_that_is_not_there: "data 'CIFAR10': not found under data (there is no such folder); "
    "name the folder that holds it with --data-root, or fetch it once with "
    "torchvision.datasets.CIFAR10('data', download=True)",
    dataset_that_is_no_classification: "data 'CocoDetection': this dataset can't be opened by name "
    "(it needs annFile, too); write a function that returns its arrays and name it as "
    "package.module:function",
}


@pytest.mark.parametrize("mistake", MESSAGES, ids=lambda mistake: mistake.__name__)
def test_bad_data_is_one_line_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mistake: Callable[[Path], str]
) -> None:
    monkeypatch.chdir(tmp_path)
    data = mistake(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    ended = run_here(tmp_path / "out", *TINY, "--data", data)
    message = MESSAGES[mistake].replace("HERE", str(tmp_path))
    assert ended.complained == f"compress-export: {message}\n"
    assert ended.code == 2
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_the_documentation_has_every_message() -> None:
    page = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
    for message in MESSAGES.values():
        assert f"`{message.replace('HERE', '/home/ann')}`" in page
