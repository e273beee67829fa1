"""Image sets, preprocessing and batches."""

import threading
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as oracle

from compress_export.data import (
    ImageSet,
    Preprocessing,
    calibration_batches,
    eval_batches,
    load_data,
    train_batches,
    train_order,
)
from compress_export.data.batches import prefetch
from compress_export.data.image_set import MemoryPixels, read_image_set
from compress_export.data.preprocessing import save_input, saved_input
from compressor.compute import Compute
from compressor.errors import InputError

PLAIN = Preprocessing(16, mean=(0, 0, 0), std=(1, 1, 1), scale=1.0)  # pixels stay 0..255
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def image_set(count: int = 21, size: int = 16) -> ImageSet:
    """Every pixel of image i differs from every other in some channel; the label is i."""
    random = np.random.default_rng(0)
    pixels = random.integers(1, 256, (count, 3, size, size), dtype=np.uint8)
    return ImageSet(MemoryPixels(pixels), np.arange(count))


def nothing(count: int) -> None:
    pass


def test_normalize_matches_torchvision() -> None:
    pixels, _ = image_set().batch(range(4))
    expected = oracle.normalize(pixels.float() / 255, list(MEAN), list(STD))
    ours = Preprocessing(16, MEAN, STD).normalize(pixels)
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-5)
    assert pixels.dtype == torch.uint8


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"size": 0}, "at least 1 pixel"),
        ({"std": (1, 0, 1)}, "above 0"),
        ({"mean": (0.5, 0.5)}, "three numbers"),
        ({"mean": (123.7, 116.3, 103.5)}, "divide it and std by 255"),
    ],
)
def test_preprocessing_refuses_nonsense(values: dict, said: str) -> None:
    with pytest.raises(InputError, match=said):
        Preprocessing(**{"size": 16, "mean": MEAN, "std": STD} | values)


def test_preprocessing_for_the_manifest() -> None:
    assert Preprocessing(32, MEAN, STD).to_json() == {
        "resize": 32,
        "mean": list(MEAN),
        "std": list(STD),
        "scale": 1 / 255,
        "channel_order": "RGB",
    }


def test_subsets_share_pixels_and_compose() -> None:
    whole = image_set()
    part = whole.subset(np.array([3, 5, 8, 13])).subset(np.array([2, 0]))
    assert part.labels.tolist() == [8, 3]
    pixels, labels = part.batch([1, 0])
    assert labels.tolist() == [3, 8]
    assert torch.equal(pixels, whole.batch([3, 8])[0])


def test_evaluation_is_in_order_and_complete() -> None:
    data = image_set()
    batches = list(eval_batches(data, PLAIN, batch_size=8))
    assert [len(y) for _, y in batches] == [8, 8, 5]
    assert torch.cat([y for _, y in batches]).tolist() == list(range(21))
    assert torch.equal(torch.cat([x for x, _ in batches]), data.batch(range(21))[0].float())


def test_training_without_augmentation_is_a_permutation_without_single_images() -> None:
    data = image_set()
    batches = list(train_batches(data, PLAIN, 5, seed=0, epoch=0, augment=False))
    assert [len(y) for _, y in batches] == [5, 5, 5, 5]  # the 21st would be alone
    for (x, y), indices in zip(batches, train_order(21, 5, 0, 0), strict=True):
        assert y.tolist() == indices.tolist()
        assert torch.equal(x, data.batch(indices)[0].float())
    seen = [i for _, y in batches for i in y.tolist()]
    assert len(set(seen)) == 20
    assert seen != sorted(seen)


def test_epochs_follow_from_seed_and_epoch_alone() -> None:
    data = image_set()

    def epoch(seed: int, number: int) -> torch.Tensor:
        return torch.cat([x for x, _ in train_batches(data, PLAIN, 4, seed, number, True, True)])

    torch.manual_seed(1)
    first = epoch(7, 3)
    torch.manual_seed(2)
    np.random.seed(5)
    assert torch.equal(first, epoch(7, 3))
    assert not torch.equal(first, epoch(7, 4))
    assert not torch.equal(first, epoch(8, 3))


def test_augmented_images_are_crops_of_the_padded_image() -> None:
    """Each is compared with all 25 shifts, mirrored or not, made by torchvision."""
    data = image_set(count=60)
    shifts, mirrored = set(), 0
    for x, y in train_batches(data, PLAIN, 60, seed=0, epoch=0, augment=True, flip=True):
        for image, label in zip(x, y.tolist(), strict=True):
            padded = oracle.pad(data.batch([label])[0][0], [2, 2, 2, 2])
            found = [
                (top, left, flip)
                for top in range(5)
                for left in range(5)
                for flip in (False, True)
                if torch.equal(image, self_flip(oracle.crop(padded, top, left, 16, 16), flip))
            ]
            assert len(found) == 1
            shifts.add(found[0][:2])
            mirrored += found[0][2]
    assert len(shifts) >= 18  # of 25, with 60 draws
    assert 15 <= mirrored <= 45


def self_flip(image: torch.Tensor, flip: bool) -> torch.Tensor:
    return (oracle.horizontal_flip(image) if flip else image).float()


def test_nothing_is_mirrored_unless_asked() -> None:
    pixels = np.zeros((40, 3, 16, 16), dtype=np.uint8)
    pixels[..., :4] = 200  # bright on the left
    data = ImageSet(MemoryPixels(pixels), np.arange(40))
    for x, _ in train_batches(data, PLAIN, 40, seed=0, epoch=0, augment=True):
        assert (x[..., :8].sum((1, 2, 3)) > x[..., 8:].sum((1, 2, 3))).all()


def test_augmentation_leaves_the_set_alone() -> None:
    data = image_set()
    before = data.batch(range(21))[0]
    list(train_batches(data, PLAIN, 4, 0, 0, True, True))
    assert torch.equal(data.batch(range(21))[0], before)


def test_batch_size_is_positive() -> None:
    with pytest.raises(InputError, match="batch size"):
        train_order(10, 0, 0, 0)


def test_calibration_streams_normalised_arrays() -> None:
    data = image_set()
    indices = np.array([4, 2, 9])
    batches = list(calibration_batches(data, Preprocessing(16, MEAN, STD), indices, batch_size=2))
    assert [b.shape for b in batches] == [(2, 3, 16, 16), (1, 3, 16, 16)]
    assert batches[0].dtype == np.float32
    expected = Preprocessing(16, MEAN, STD).normalize(data.batch(indices)[0])
    np.testing.assert_array_equal(np.concatenate(batches), expected.numpy())


def files(folder: Path, count: int = 12) -> list[Path]:
    random = np.random.default_rng(0)
    paths = [folder / f"{i:02}.png" for i in range(count)]
    for path in paths:
        Image.fromarray(random.integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(path)
    return paths


def test_sets_too_large_for_memory_give_the_same_images(tmp_path: Path) -> None:
    paths = files(tmp_path)
    paths[3].write_bytes(b"broken")
    labels = np.arange(12)
    held, broken = read_image_set(paths, labels, 16, nothing)
    lazy, same_broken = read_image_set(paths, labels, 16, nothing, max_memory_bytes=1000)
    assert type(held._store) is not type(lazy._store)
    assert [b.row for b in broken] == [b.row for b in same_broken] == [3]
    assert len(lazy) == 11
    order = [10, 0, 3, 7]
    for ours, theirs in zip(lazy.batch(order), held.batch(order), strict=True):
        assert torch.equal(ours, theirs)
    assert lazy.batch(order)[1].tolist() == [11, 0, 4, 8]


def test_all_sets_of_a_job_share_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for part, label in product(("train", "val", "test"), "ab"):
        (tmp_path / part / label).mkdir(parents=True)
        files(tmp_path / part / label)
    training_only = 24 * 3 * 16 * 16 + 1000
    monkeypatch.setattr("compress_export.data.loading.MAX_MEMORY_BYTES", training_only)
    data = load_data(str(tmp_path), input_size=16)
    held = [part.held_bytes for part in (data.train, data.validation, data.test)]
    assert held == [24 * 3 * 16 * 16, 0, 0]
    assert torch.equal(data.test.batch(range(24))[0], data.train.batch(range(24))[0])


def test_an_image_lost_during_the_run_is_named(tmp_path: Path) -> None:
    paths = files(tmp_path)
    lazy, _ = read_image_set(paths, np.arange(12), 16, nothing, max_memory_bytes=1000)
    paths[4].unlink()
    with pytest.raises(InputError, match=r"04\.png"):
        list(eval_batches(lazy, PLAIN))


def test_prefetch_is_one_ahead_and_hands_on_errors() -> None:
    made: list[int] = []

    def numbers() -> Iterator[int]:
        for i in range(3):
            made.append(i)
            yield i
        raise KeyError("the end")

    taken = []
    stream = prefetch(numbers())
    with pytest.raises(KeyError, match="the end"):
        for number in stream:
            taken.append(number)
            assert len(made) <= number + 2
    assert taken == [0, 1, 2]


def test_prefetch_leaves_no_thread_when_its_consumer_stops() -> None:
    stream = prefetch(iter(range(100)))
    assert next(stream) == 0
    stream.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("prefetch")]


def test_a_saved_network_says_what_it_was_trained_with(tmp_path: Path) -> None:
    assert saved_input(tmp_path) is None
    preprocessing = Preprocessing(48, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    save_input(preprocessing, tmp_path)
    assert saved_input(tmp_path) == preprocessing


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"size": 48}',
        '{"size": 1e9, "mean": [0, 0, 0], "std": [1, 1, 1]}',
        '{"size": 48, "mean": [0, NaN, 0], "std": [1, 1, 1]}',
        '{"size": 48, "mean": [0, 0], "std": [1, 1, 1]}',
        "[" * 100_000,
    ],
)
def test_a_damaged_note_of_the_input_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "input.json").write_text(text)
    with pytest.raises(InputError, match="input.json is damaged.*--input-size, --mean") as caught:
        saved_input(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_device_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ValueError, match="cuda:7: this machine has 1 CUDA devices"):
        Compute.choose("cuda:7")
