"""A user's own small set of images through the whole job: `python -m benchmarks.small_set`.

    python -m benchmarks.small_set --data CIFAR --weights resnet20.th --work DIR --threads 1

Three of CIFAR-10's classes with 100 training images each, as a user would bring them: squares of 24
to 96 pixels, some grey, some with transparency, names that are not ASCII, one file cut off. A
ResNet-20 whose weights know ten classes gets a new last layer, is adapted, pruned to a share of its
MACs and quantized, all by the Python API and, but for --finetune-epochs, by the job's own choice of
epochs. All test images of the three classes, treated alike, judge it. Each run appends a row to
results/small_set.jsonl; its job stays in DIR/seed-N.
"""

from __future__ import annotations

import argparse
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.pruning.results import append
from compress_export import JobOptions, compress
from compress_export.data import eval_batches, load_data
from compress_export.data.preprocessing import Preprocessing
from compressor.models import IMAGENET_MEAN, IMAGENET_STD, build_model
from compressor.weights import load_weights

FILE = Path(__file__).parent / "results" / "small_set.jsonl"
NETWORK, SIZE = "resnet20", 32
CLASSES = {"airplane": "avión", "cat": "猫", "ship": "bateau à voile"}
"""CIFAR's name -> the folder's."""
IMAGES_PER_CLASS = 100
SMALLEST, LARGEST = 24, 96  # pixels
GREY_SHARE, TRANSPARENT_SHARE = 0.15, 0.15


def main(arguments: Sequence[str] | None = None) -> None:
    """Make the images, run the job, append the row."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--data", type=Path, required=True, help="CIFAR-10: train/CLASS, test/CLASS"
    )
    parser.add_argument("--weights", type=Path, required=True, help="of a ResNet-20, ten classes")
    parser.add_argument("--work", type=Path, required=True, help="folder for images and jobs")
    parser.add_argument("--share", type=float, default=0.5, help="of the MACs that may remain")
    parser.add_argument("--finetune-epochs", type=int, help="default: what the job chooses")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    job = given.work / f"seed-{given.seed}"
    images = given.work / f"images-{given.seed}"
    broken = make_images(given.data, images, given.seed)
    options = JobOptions(
        board="x86-64",
        model=NETWORK,
        weights=given.weights,
        new_head=True,
        data=str(images),
        target_macs=given.share,
        finetune_epochs=given.finetune_epochs,
        seed=given.seed,
        threads=given.threads,
        out=job,
        force=True,
    )
    known = given_top1(given.data, images, given.weights)
    found = row_of(compress(options).report, images)
    append(FILE, {"seed": given.seed, "broken_file": broken.name, "given_top1": known, **found})


def make_images(cifar: Path, folder: Path, seed: int) -> Path:
    """Write train/ and test/ anew and return the file that is cut off.

    Args:
        cifar: folder with train/CLASS and test/CLASS.
        folder: is replaced.
        seed: decides which training images, and how each image is changed.
    """
    shutil.rmtree(folder, ignore_errors=True)
    random = np.random.default_rng(seed)
    written: list[Path] = []
    for part in ("test", "train"):
        for source, name in CLASSES.items():
            paths = sorted((cifar / part / source).iterdir())
            if part == "train":
                chosen = random.choice(len(paths), IMAGES_PER_CLASS, replace=False)
                paths = [paths[index] for index in sorted(chosen)]
            to = folder / part / name
            to.mkdir(parents=True)
            written += [_write(path, to, random) for path in paths]
    broken = written[-1]  # a training image
    content = broken.read_bytes()
    broken.write_bytes(content[: len(content) // 2])
    return broken


def _write(path: Path, folder: Path, random: np.random.Generator) -> Path:
    """Write one image in a size and kind by chance."""
    image = Image.open(path).convert("RGB")
    side = int(random.integers(SMALLEST, LARGEST, endpoint=True))
    image = image.resize((side, side), Image.Resampling.BICUBIC)
    kind = random.random()
    if kind < GREY_SHARE:
        image = image.convert("L")
    elif kind < GREY_SHARE + TRANSPARENT_SHARE:
        image.putalpha(int(random.integers(64, 255)))  # RGBA
    target = folder / f"größe {side}, {path.stem}.png"
    image.save(target)
    return target


def given_top1(cifar: Path, images: Path, weights: Path) -> float:
    """Top-1 on the test images of the given network, asked for these classes alone."""
    names = sorted(path.name for path in (cifar / "train").iterdir())
    data = load_data(str(images), input_size=SIZE)
    source = {name: original for original, name in CLASSES.items()}
    columns = [names.index(source[name]) for name in data.classes]
    model = build_model(NETWORK, len(names)).eval()
    load_weights(model, weights)
    right = 0
    with torch.no_grad():
        for x, labels in eval_batches(data.test, Preprocessing(SIZE, IMAGENET_MEAN, IMAGENET_STD)):
            right += int((model(x)[:, columns].argmax(dim=1) == labels).sum())
    return right / len(data.test)


def row_of(report: dict[str, Any], images: Path) -> dict[str, Any]:
    """Take from a report what the job kept and lost, and what it says about the images.

    Args:
        images: the folder of the images, which warnings are freed of.

    Returns:
        Plain JSON. top1: fractions of the torch networks. files: all model files with their top-1,
        size in bytes and loss against the torch baseline in points.
    """
    stages = report["stages"]
    baseline = stages["baseline"]["top1"]
    files = [
        {
            **{key: file[key] for key in ("path", "precision", "size_bytes", "top1")},
            "drop_points": round(100 * (baseline - file["top1"]), 2),
        }
        for file in report["artifacts"]
    ]
    return {
        "network": report["model"],
        "target_macs": report["options"]["target_macs"],
        "finetune_epochs": report["options"]["finetune_epochs"],
        "macs_share": round(stages["slim"]["macs"] / stages["baseline"]["macs"], 4),
        "top1": {name: stage["top1"] for name, stage in stages.items()},
        "files": files,
        "warnings": [text.replace(f"{images}{os.sep}", "") for text in report["warnings"]],
        "verdict": report["verdict"],
        "seconds": report["timings_seconds"],
        "load_average": [round(load, 1) for load in os.getloadavg()],
    }


if __name__ == "__main__":
    main()
