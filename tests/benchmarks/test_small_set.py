"""The small set of a user's own: what is written, and what is taken from a report."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks import small_set
from benchmarks.pruning.results import rows
from compress_export.data import load_data


@pytest.fixture(scope="module")
def cifar(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noise of 32 pixels, 120 training and 5 test images of each class that is wanted."""
    root, random = tmp_path_factory.mktemp("cifar"), np.random.default_rng(0)
    for part, count in (("train", 120), ("test", 5)):
        for name in ("airplane", "cat", "dog", "ship"):
            (root / part / name).mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(0, 256, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / part / name / f"{number:04}.jpg")
    return root


def test_the_set_is_what_users_bring(tmp_path: Path, cifar: Path) -> None:
    broken = small_set.make_images(cifar, tmp_path / "images", seed=0)
    counts = Counter(path.parent for path in (tmp_path / "images").rglob("*.png"))
    assert sorted(counts.values()) == [5] * 3 + [100] * 3
    assert {folder.name for folder in counts} == set(small_set.CLASSES.values())
    sizes, modes = set(), Counter()
    for path in (tmp_path / "images" / "train").rglob("*.png"):
        assert not path.name.isascii()
        with Image.open(path) as image:
            sizes.add(image.size)
            modes[image.mode] += 1
    assert min(sizes) >= (24, 24)
    assert max(sizes) <= (96, 96)
    assert len(sizes) > 40
    assert set(modes) == {"RGB", "L", "RGBA"}
    data = load_data(str(tmp_path / "images"), input_size=8)
    assert data.skipped == (str(broken),)
    assert broken.parts[-3] == "train"


def test_the_seed_decides_which_images(tmp_path: Path, cifar: Path) -> None:
    def names(folder: str, seed: int) -> set[Path]:
        root = tmp_path / folder
        small_set.make_images(cifar, root, seed)
        return {path.relative_to(root) for path in root.rglob("*.png")}

    first = names("first", 0)
    assert names("second", 0) == first
    assert names("first", 1) != first  # the folder is replaced, not added to


def test_a_row_says_what_was_lost() -> None:
    file = {"path": "bundle/slim.int8.onnx", "precision": "int8", "size_bytes": 9, "top1": 0.875}
    stage = {"macs": 200, "top1": 0.9}
    row = small_set.row_of(
        {
            "model": "resnet20",
            "options": {"target_macs": 0.5, "finetune_epochs": None},
            "stages": {"baseline": stage, "slim": {"macs": 90, "top1": 0.89}},
            "artifacts": [{**file, "latency": 1}],
            "warnings": ["1 broken image was left out: /here/images/train/x.png"],
            "verdict": "fail",
            "timings_seconds": {"search": 2.0},
        },
        Path("/here/images"),
    )
    assert row["macs_share"] == 0.45
    assert row["top1"] == {"baseline": 0.9, "slim": 0.89}
    assert row["files"] == [{**file, "drop_points": 2.5}]
    assert row["warnings"] == ["1 broken image was left out: train/x.png"]


def test_the_page_has_the_figures_of_its_row() -> None:
    page = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
    row = next(r for r in rows(small_set.FILE) if r["seed"] == 0 and r["finetune_epochs"] is None)
    files = {file["path"]: f"{file['top1']:.1%}" for file in row["files"]}
    table = [
        [f"{row['given_top1']:.1%}", "", ""],
        [f"{row['top1']['baseline']:.1%}"]
        + [files[f"reference/baseline.int8.{kind}"] for kind in ("onnx", "tflite")],
        [f"{row['top1']['slim']:.1%}"]
        + [files[f"bundle/slim.int8.{kind}"] for kind in ("onnx", "tflite")],
    ]
    for figures in table:
        assert f" | {' | '.join(figures)} |".replace("%", " %").replace("  |", " |") in page
    assert row["warnings"][0] in page
