"""Classification metrics as fractions of 1, and latency percentiles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    IntArray = npt.NDArray[np.integer[Any]]


def top1(labels: IntArray, predictions: IntArray) -> float:
    """Share of predictions that equal the label; both [N], N at least 1."""
    _same_length(labels, predictions)
    return float(np.mean(labels == predictions))


def agreement(first: IntArray, second: IntArray) -> float:
    """Share of samples on which two sets of predictions [N] agree, right or wrong."""
    return top1(first, second)


def macro_precision_recall(labels: IntArray, predictions: IntArray) -> tuple[float, float]:
    """Unweighted means over classes of precision and recall.

    As scikit-learn's precision_score and recall_score with average="macro", zero_division=0: the
    classes are those that occur among labels or predictions, and a class that was never predicted
    (never a label) has precision (recall) 0.
    """
    _same_length(labels, predictions)
    classes, codes = np.unique(np.concatenate([labels, predictions]), return_inverse=True)
    codes = codes.reshape(-1)
    true, guessed = codes[: len(labels)], codes[len(labels) :]
    count = len(classes)
    hits = np.bincount(true[true == guessed], minlength=count)
    labelled = np.bincount(true, minlength=count)
    predicted = np.bincount(guessed, minlength=count)
    precision = hits / np.maximum(predicted, 1)  # hits is 0 wherever predicted is 0
    recall = hits / np.maximum(labelled, 1)
    return float(precision.mean()), float(recall.mean())


def latency_percentiles(times_ms: Sequence[float]) -> dict[str, float]:
    """p50, p90 and p99 of the runs, linearly interpolated."""
    values = np.percentile(np.asarray(times_ms, dtype=np.float64), (50, 90, 99))
    return {"p50": float(values[0]), "p90": float(values[1]), "p99": float(values[2])}


def _same_length(first: IntArray, second: IntArray) -> None:
    if len(first) != len(second) or len(first) == 0:
        raise ValueError(
            f"{len(first)} and {len(second)} values: metrics need two equal lengths of at least 1"
        )
