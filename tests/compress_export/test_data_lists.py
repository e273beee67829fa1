"""CSV lists of images and labels."""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from compress_export.data import ImageData, load_data
from compressor.errors import InputError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve images; the red of image i is 20 * i."""
    for i in range(12):
        Image.new("RGB", (10, 8), (20 * i, 0, 0)).save(tmp_path / f"{i}.png")
    return tmp_path


def write_list(folder: Path, rows: list[str], name: str = "list.csv") -> Path:
    path = folder / name
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


def load(path: Path) -> ImageData:
    return load_data(str(path), input_size=8)


def labels_by_number(data: ImageData, part: str) -> dict[int, str]:
    """Number of each image of a part -> its class."""
    image_set = getattr(data, part)
    reds = image_set.read(np.arange(len(image_set)))[:, 0, 4, 4]
    return {
        int(red) // 20: data.classes[label]
        for red, label in zip(reds, image_set.labels, strict=True)
    }


def test_names_are_classes_and_a_fifth_is_for_testing(folder: Path) -> None:
    wanted = {i: "dog" if i % 3 == 0 else "cat" for i in range(12)}
    rows = [f"{i}.png,{name}" for i, name in wanted.items()]
    data = load(write_list(folder, ["path,label", *rows]))
    assert data.name == "list"
    assert data.classes == ("cat", "dog")
    parts = [labels_by_number(data, part) for part in ("train", "validation", "test")]
    assert parts[0] | parts[1] | parts[2] == wanted
    assert sum(map(len, parts)) == 12
    assert all(set(part.values()) == {"cat", "dog"} for part in parts)


def test_splits_columns_in_any_order_and_absolute_paths(folder: Path) -> None:
    splits = ["train"] * 6 + ["Validation"] * 2 + ["test"] * 4
    rows = [f"{s},note {i},{folder / f'{i}.png'},{i % 2}" for i, s in enumerate(splits)]
    data = load(write_list(folder, ["split,remark,path,label", *rows]))
    assert data.classes == ("0", "1")
    assert not data.flip_allowed  # nobody knows what classes called 0 and 1 show
    for part, numbers in (("train", range(6)), ("validation", (6, 7)), ("test", range(8, 12))):
        assert labels_by_number(data, part) == {i: str(i % 2) for i in numbers}


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_delimiters_quotes_and_what_spreadsheets_write(folder: Path, delimiter: str) -> None:
    """A byte-order mark, Windows' line ends, and blank lines at the end."""
    odd = "späße, 1; 2\t'x' [red].png"
    (folder / "sub").mkdir()
    (folder / "0.png").rename(folder / "sub" / odd)
    path = folder / "list.tsv"
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(["Path", "Label"])
        writer.writerow([f"sub/{odd}", "größer"])
        writer.writerows([f"{i}.png", ("größer", "kleiner")[i % 2]] for i in range(1, 12))
        file.write("\r\n\r\n")
    data = load(path)
    assert data.classes == ("größer", "kleiner")
    assert len(data.train) + len(data.validation) + len(data.test) == 12


def test_numbers_sort_as_numbers_and_names_with_digits_are_names(folder: Path) -> None:
    numbers = [f"{i}.png,{i % 3 + 9 * (i % 3 == 2)}" for i in range(12)]  # 0, 1 and 11
    with pytest.raises(InputError, match=r"class numbers 0 to 11, but no image has the label 2"):
        load(write_list(folder, ["path,label", *numbers]))
    names = [f"{i}.png,0{i % 3}" for i in range(12)]
    assert load(write_list(folder, ["path,label", *names])).classes == ("00", "01", "02")


GOOD = [f"{i}.png,{i % 2}" for i in range(12)]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([], "first line has to name the columns path and label"),
        (GOOD, "it is '0.png,0'"),
        (["path,label"], "no lines below the header"),
        (["path,label", *GOOD, "a,b.png,1"], "line 14: 3 fields, but the header has 2"),
        (["path,label", *GOOD, ",1"], "line 14: the path is missing"),
        (["path,label", *GOOD[:3], "3.png, "], "line 5: the label is missing"),
        (["path,label", *GOOD, "12.png,0"], "1 of 13 files are not there"),
        (["path,label", *GOOD, "sub\\12.png,0"], "write folders with /"),
        (["path,label", *GOOD, "3.png,0"], "listed twice, in the lines 5 and 14"),
        (["path,label", '0.png,"cat'], "line 2: unexpected end of data"),
        (["path,label,split", "0.png,0,dev"], "line 2: split 'dev' is not train, val or test"),
        (["path,label,split", *(f"{row},train" for row in GOOD)], "says only train"),
        (["path,label", *(f"{i}.png,{i % 2 + 1}" for i in range(12))], "counted from 1"),
        (["path,label", *(f"{i}.png,cat" for i in range(12))], "at least two classes"),
        (["path,label", *(f"{i}.png,{i > 9}" for i in range(12))], "class 'True' has 2 images"),
        (["path,label", *GOOD[:11], '11.png,"a\nb"'], "can't be written as a line"),
    ],
)
def test_mistakes(folder: Path, rows: list[str], said: str) -> None:
    path = write_list(folder, rows)
    with pytest.raises(InputError) as caught:
        load(path)
    assert said in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_other_encodings_are_refused(folder: Path) -> None:
    path = folder / "list.csv"
    path.write_bytes("path,label\n0.png,größer\n".encode("latin-1"))
    with pytest.raises(InputError, match="save the list as UTF-8"):
        load(path)
