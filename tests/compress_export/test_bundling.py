"""The images packed into a bundle: as many as asked for, in the classes' own shares."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from compress_export.bundling import pack_samples, stratified
from compress_export.options import JobOptions
from runtime_bench import open_samples

labels_of_some = st.lists(st.integers(0, 5), min_size=1, max_size=80).map(np.array)


@given(labels=labels_of_some, count=st.integers(1, 100), seed=st.integers(0, 3))
def test_every_class_has_its_share(labels: np.ndarray, count: int, seed: int) -> None:
    chosen = stratified(labels, count, seed)
    assert len(chosen) == min(count, len(labels)) == len(set(chosen.tolist()))
    assert np.array_equal(chosen, np.sort(chosen))
    assert np.array_equal(chosen, stratified(labels, count, seed))
    for label in np.unique(labels):
        exact = (labels == label).sum() * len(chosen) / len(labels)
        assert abs((labels[chosen] == label).sum() - exact) < 1


def test_another_seed_draws_others() -> None:
    labels = np.repeat(np.arange(4), 50)
    assert not np.array_equal(stratified(labels, 40, 0), stratified(labels, 40, 1))


def test_packed_samples_are_the_same_images(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (60, 4, 4, 3), dtype=np.uint8)
    labels = np.arange(60) % 3
    np.savez(
        tmp_path / "all.npz",
        images=images,
        labels=labels,
        predictions_baseline=labels,
        predictions_slim=(labels + 1) % 3,
    )
    pack_samples(tmp_path / "all.npz", tmp_path / "some.npz", 12, seed=0)
    packed = open_samples(tmp_path / "some.npz", (3, 4, 4), 3)
    assert np.bincount(packed.labels).tolist() == [4, 4, 4]
    assert packed.baseline_top1() == 1.0
    assert np.array_equal(packed.predictions["slim"], (packed.labels + 1) % 3)
    chosen = stratified(labels, 12, 0)
    assert np.array_equal(np.concatenate(list(packed.batches(5))), images[chosen])


@pytest.mark.parametrize(
    ("given_options", "why"),
    [
        ({"stages": "prune,quantize"}, "read by the stage bench"),
        ({"metric": "package.module:score"}, "judges top-1 alone"),
    ],
)
def test_images_that_could_not_be_packed(given_options: dict[str, str], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        JobOptions(board="rpi5", bundle_samples=10, **given_options)
