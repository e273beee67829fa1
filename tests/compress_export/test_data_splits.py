"""Splits and calibration samples: disjoint, in proportion, repeatable."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from compress_export.data import calibration_indices, stratified_split
from compress_export.data.balance import remarks
from compress_export.data.raw import RawSet, from_parts
from compressor.errors import InputError

labels_of_any_kind = arrays(np.int64, st.integers(1, 200), elements=st.integers(0, 6))
shares = st.floats(0.01, 0.99)
seeds = st.integers(0, 2**31)


@given(labels_of_any_kind, shares, seeds)
def test_split_is_disjoint_and_complete(labels: np.ndarray, share: float, seed: int) -> None:
    stay, aside = stratified_split(labels, share, seed)
    np.testing.assert_array_equal(np.sort(np.concatenate([stay, aside])), np.arange(len(labels)))
    assert (np.diff(stay) > 0).all()
    assert (np.diff(aside) > 0).all()


@given(labels_of_any_kind, shares, seeds)
def test_split_keeps_the_share_of_each_class(labels: np.ndarray, share: float, seed: int) -> None:
    _, aside = stratified_split(labels, share, seed)
    for label in np.unique(labels):
        count = int((labels == label).sum())
        taken = int((labels[aside] == label).sum())
        # One image of rounding, half of one from rounding the total; and one at least, on each side
        assert abs(taken - np.clip(share * count, 1, count - 1)) <= 1.5
        assert (1 <= taken <= count - 1) if count > 1 else taken == 0


@given(labels_of_any_kind, shares, seeds)
def test_split_is_repeatable(labels: np.ndarray, share: float, seed: int) -> None:
    first, second = (stratified_split(labels, share, seed) for _ in range(2))
    np.testing.assert_array_equal(first[1], second[1])


def test_split_depends_on_the_seed_and_heeds_the_limit() -> None:
    labels = np.repeat(np.arange(10), 1000)
    _, aside = stratified_split(labels, 0.1, seed=0)
    _, other = stratified_split(labels, 0.1, seed=1)
    assert not np.array_equal(aside, other)
    assert np.bincount(labels[aside]).tolist() == [100] * 10
    _, limited = stratified_split(labels, 0.5, seed=0, at_most=50)
    assert np.bincount(labels[limited]).tolist() == [5] * 10


@pytest.mark.parametrize("share", [-0.1, 0.0, 1.0, 3.0])
def test_shares_outside_0_to_1_are_refused(share: float) -> None:
    with pytest.raises(InputError, match="above 0 and below 1"):
        stratified_split(np.zeros(5, dtype=np.int64), share, seed=0)


@given(labels_of_any_kind, st.integers(1, 250), seeds)
def test_calibration_is_as_balanced_as_the_data_allows(
    labels: np.ndarray, count: int, seed: int
) -> None:
    chosen = calibration_indices(labels, count, seed)
    assert len(chosen) == min(count, len(labels))
    assert len(np.unique(chosen)) == len(chosen)
    held = np.bincount(labels, minlength=7)
    for prefix in (chosen[: len(chosen) // 2], chosen):
        taken = np.bincount(labels[prefix], minlength=7)
        still_has_some = taken < held
        if still_has_some.any():  # nobody is more than one turn ahead of a class with images left
            assert taken.max() <= taken[still_has_some].min() + 1


def test_calibration_is_repeatable_and_seeded() -> None:
    labels = np.repeat(np.arange(4), 100)
    first = calibration_indices(labels, 64, seed=3)
    np.testing.assert_array_equal(first, calibration_indices(labels, 64, seed=3))
    assert not np.array_equal(first, calibration_indices(labels, 64, seed=4))
    assert np.bincount(labels[first]).tolist() == [16] * 4


def test_calibration_needs_samples() -> None:
    with pytest.raises(InputError, match="at least one"):
        calibration_indices(np.zeros(5, dtype=np.int64), 0, seed=0)


@given(st.lists(st.integers(3, 40), min_size=2, max_size=8), st.floats(0.01, 0.5), seeds)
def test_three_images_of_a_class_reach_every_part(
    counts: list[int], validation_share: float, seed: int
) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    whole = RawSet(list(range(len(labels))), labels)
    classes = tuple(f"class {i}" for i in range(len(counts)))
    raw = from_parts("here", {"whole": whole}, classes, seed, name="here", kind="the test")
    stay, aside = stratified_split(raw.train.labels, validation_share, seed)
    parts = [raw.train.take(stay), raw.train.take(aside), raw.test]
    assert sorted(image for part in parts for image in part.images) == list(range(len(labels)))
    for part in parts:
        assert part.labels.tolist() == labels[part.images].tolist()
        assert np.bincount(part.labels, minlength=len(counts)).min() >= 1


def test_unequal_classes_are_told_with_their_counts() -> None:
    enough = np.zeros(100, dtype=np.int64)
    equal = np.repeat([0, 1, 2], [100, 50, 10])
    assert remarks(["cat", "dog", "emu"], equal[1:], enough) == ()
    (line,) = remarks(["cat", "dog", "emu"], equal, enough)
    assert line.endswith("training images: cat 100, dog 50, emu 10")
    many = np.repeat(np.arange(20), np.arange(1, 21))
    (line,) = remarks([f"c{i}" for i in range(20)], many, enough)
    assert line.endswith(
        "c19 20, c18 19, c17 18, c16 17, c15 16, ..., c4 5, c3 4, c2 3, c1 2, c0 1"
    )


def test_few_test_images_are_told() -> None:
    labels = np.arange(100) % 2
    assert remarks(["cat", "dog"], labels, labels) == ()
    (line,) = remarks(["cat", "dog"], labels, labels[:8])
    assert line == "there are only 8 test images: each is 12.5 points of top-1"
