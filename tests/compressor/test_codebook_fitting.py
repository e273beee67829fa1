"""Codebooks against scikit-learn's k-means, optimal partitions, and their promises."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans

from compressor.codebook.fitting import FITS, Codebook, kmeans, mixture
from compressor.errors import InputError


def weights(count: int, seed: int = 0) -> np.ndarray:
    """Like a layer's: many near zero, few far from it."""
    return np.random.default_rng(seed).laplace(0, 0.05, count)


def squared_error(values: np.ndarray, codebook: Codebook) -> float:
    return float(((values - codebook.centroids[codebook.indices]) ** 2).sum())


@pytest.mark.parametrize("entries", [2, 4, 16])
def test_lloyd_ends_where_scikit_learn_ends(entries: int) -> None:
    values = weights(3000)
    starts = np.linspace(values.min(), values.max(), entries)[:, None]
    oracle = KMeans(entries, init=starts, n_init=1, max_iter=1000, tol=0).fit(values[:, None])
    ours = kmeans(values, entries, 0, start="linear")
    assert squared_error(values, ours) == pytest.approx(oracle.inertia_, rel=1e-6)
    assert ours.centroids == pytest.approx(np.sort(oracle.cluster_centers_.ravel()), abs=1e-6)


@pytest.mark.parametrize("entries", [2, 16, 64, 256])
def test_drawn_starts_are_as_good_as_scikit_learns(entries: int) -> None:
    values = weights(3000)
    oracle = KMeans(entries, n_init=1, random_state=0).fit(values[:, None])
    assert squared_error(values, kmeans(values, entries, 0)) <= 1.1 * oracle.inertia_


def test_two_entries_are_within_reach_of_the_best_partition() -> None:
    """One bit: the best of all cuts of the sorted weights, by trying them all."""
    values = np.sort(weights(400))
    cuts = [values[:cut].var() * cut + values[cut:].var() * (400 - cut) for cut in range(1, 400)]
    assert squared_error(values, kmeans(values, 2, 0)) == pytest.approx(min(cuts), rel=0.02)


def test_few_values_by_all_partitions() -> None:
    values = np.array([0.0, 0.1, 0.9, 1.0, 1.2, 4.0, 4.1, 9.0])
    best = min(
        sum(part.var() * len(part) for part in np.split(values, cuts))
        for cuts in combinations(range(1, 8), 3)
    )
    found = min(squared_error(values, kmeans(values, 4, seed)) for seed in range(3))
    assert found == pytest.approx(best)


@settings(max_examples=60)
@given(
    st.lists(st.floats(-10, 10, width=32), min_size=1, max_size=60),
    st.integers(2, 256),
    st.sampled_from(["k-means++", "linear"]),
)
def test_a_codebook_keeps_its_promises(values: list[float], entries: int, start: str) -> None:
    array = np.array(values, np.float64)
    codebook = kmeans(array, entries, 0, start=start)  # type: ignore[arg-type]
    assert len(codebook.centroids) <= min(entries, len(np.unique(array)))
    assert (np.diff(codebook.centroids) > 0).all()
    assert np.unique(codebook.indices).tolist() == list(range(len(codebook.centroids)))
    for index, centroid in enumerate(codebook.centroids):
        assert centroid == pytest.approx(array[codebook.indices == index].mean(), abs=1e-9)
    if len(np.unique(array)) <= entries:
        assert squared_error(array, codebook) == 0


@pytest.mark.parametrize("name", ["kmeans", "mixture"])
def test_fits_repeat_themselves_and_more_entries_fit_better(name: str) -> None:
    values, fit = weights(2000), FITS[name]  # type: ignore[index]
    books = [fit(values, entries, 1) for entries in (2, 4, 16)]
    errors = [squared_error(values, book) for book in books]
    assert errors == sorted(errors, reverse=True)
    again = fit(values, 16, 1)
    assert np.array_equal(again.centroids, books[-1].centroids)
    assert np.array_equal(again.indices, books[-1].indices)


def entropy_bits(codebook: Codebook) -> float:
    shares = np.bincount(codebook.indices) / len(codebook.indices)
    return float(-(shares * np.log2(shares)).sum())


def test_a_mixture_trades_error_for_entropy() -> None:
    values = weights(4000)
    by_means, by_mixture = kmeans(values, 16, 0), mixture(values, 16, 0)
    assert squared_error(values, by_mixture) >= squared_error(values, by_means)
    assert entropy_bits(by_mixture) < entropy_bits(by_means)
    # clusters are still slices of the number line
    order = np.argsort(values)
    assert (np.diff(by_mixture.indices[order]) >= 0).all()


def test_a_mixture_of_many_weights_is_the_same_piece_by_piece(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    values = weights(1001)
    whole = mixture(values, 8, 0)
    monkeypatch.setattr("compressor.codebook.fitting._AT_ONCE", 100)
    pieces = mixture(values, 8, 0)
    assert np.array_equal(whole.indices, pieces.indices)
    assert np.array_equal(whole.centroids, pieces.centroids)


def test_a_mixture_finds_separate_groups() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat([-1.0, 0.2, 3.0], [100, 300, 50])
    found = mixture(groups + rng.normal(0, 0.01, len(groups)), 3, 0)
    assert found.centroids == pytest.approx([-1, 0.2, 3], abs=0.01)
    assert np.bincount(found.indices).tolist() == [100, 300, 50]


@pytest.mark.parametrize("entries", [1, 0, 257])
def test_entries_out_of_range(entries: int) -> None:
    with pytest.raises(InputError, match=f"{entries} entries: 2 to 256"):
        kmeans(weights(10), entries, 0)


def test_diverged_weights() -> None:
    with pytest.raises(InputError, match="not finite"):
        mixture(np.array([0.0, np.nan, 1.0]), 2, 0)
