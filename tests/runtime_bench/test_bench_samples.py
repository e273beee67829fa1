from pathlib import Path

import bench_models
import numpy as np
import pytest

from runtime_bench import SamplesError, open_samples

SHAPE = (bench_models.CHANNELS, bench_models.HEIGHT, bench_models.WIDTH)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "samples.npz"


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("size", [1, 50, 120, 500])
def test_batches_stream_the_images_in_order(path: Path, save: object, size: int) -> None:
    arrays = bench_models.write_samples(path)
    save(path, **arrays)  # type: ignore[operator]
    samples = open_samples(path, SHAPE, bench_models.CLASSES)
    batches = list(samples.batches(size))
    assert {len(batch) for batch in batches[:-1]} <= {size}
    assert np.array_equal(np.concatenate(batches), arrays["images"])
    assert np.array_equal(samples.labels, arrays["labels"])
    assert np.array_equal(samples.predictions["slim"], arrays["predictions_slim"])


def test_baseline_top1_comes_from_its_predictions(path: Path) -> None:
    arrays = bench_models.write_samples(path)
    assert open_samples(path).baseline_top1() == 1.0
    np.savez(path, images=arrays["images"], labels=arrays["labels"])
    assert open_samples(path).baseline_top1() is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": np.zeros((2, 4, 5, 3), np.float32)}, "expected uint8"),
        ({"images": np.zeros((2, 4, 5), np.uint8)}, "expected uint8"),
        ({"images": np.zeros((2, 8, 8, 3), np.uint8)}, r"the network takes \(4, 5, 3\)"),
        ({"labels": np.zeros(3, np.int64)}, "beside 2 images"),
        ({"labels": np.zeros(2, np.float32)}, "expected one integer per image"),
        ({"labels": np.array([0, 4])}, "labels run from 0 to 4, the network has 4 classes"),
        ({"labels": np.array([-1, 0])}, "labels run from -1 to 0"),
        ({"predictions_slim": np.zeros(1, np.int64)}, "'predictions_slim' is int64"),
    ],
)
def test_unfit_samples_are_refused(path: Path, changes: dict, message: str) -> None:
    good = {"images": np.zeros((2, 4, 5, 3), np.uint8), "labels": np.zeros(2, np.int64)}
    np.savez(path, **{**good, **changes})
    with pytest.raises(SamplesError, match=message):
        open_samples(path, SHAPE, bench_models.CLASSES)


def test_other_files_are_refused(path: Path) -> None:
    with pytest.raises(SamplesError, match="can't be read as samples"):
        open_samples(path)
    path.write_bytes(b"not a zip")
    with pytest.raises(SamplesError, match="can't be read as samples"):
        open_samples(path)
    np.savez(path, images=np.zeros((2, 4, 5, 3), np.uint8))
    with pytest.raises(SamplesError, match="'labels' is missing"):
        open_samples(path)


def test_pickled_labels_are_not_loaded(path: Path) -> None:
    images = np.zeros((1, 4, 5, 3), np.uint8)
    np.savez(path, images=images, labels=np.array([{"a": 1}], dtype=object))
    with pytest.raises(SamplesError, match="can't be read as samples"):
        open_samples(path)
