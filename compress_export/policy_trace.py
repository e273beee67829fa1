"""The agents' keep probabilities while they learn: kept in DIR.run, summed up for the report."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compress_export.whole_files import write_whole
from compressor.graph import ChannelGraph
from compressor.whole_files import whole_file

MOMENTS = 60
"""Of a search that are kept: enough for a curve, few enough for any network."""

BANDS = (0.0, 0.05, 0.35, 0.65, 0.95, 1.0)
"""Limits of sure to go, likely to go, undecided, likely to stay, sure to stay."""


class PolicyTrace:
    """Probabilities at evenly spaced moments of a search; a resumed search goes on with them.

    Args:
        path: .npz that keeps them, written by `save`.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._progress: list[float] = []
        self._rows: list[NDArray[np.float16]] = []
        if path.exists():
            with np.load(path, allow_pickle=False) as found:
                self._progress = found["progress"].tolist()
                self._rows = list(found["probabilities"])

    def note(self, progress: float, probabilities: NDArray[np.floating[Any]]) -> None:
        """Keep the probabilities, (classes,), at a share of the search, if it is time again."""
        while self._progress and self._progress[-1] >= progress:  # done again after a resume
            self._progress.pop()
            self._rows.pop()
        moment = int(progress * MOMENTS)
        if not self._progress or moment > int(self._progress[-1] * MOMENTS):
            self._progress.append(progress)
            self._rows.append(probabilities.astype(np.float16))

    def save(self) -> None:
        """Write the file anew."""
        rows = np.stack(self._rows)
        with whole_file(self._path) as unfinished, unfinished.open("wb") as file:
            np.savez_compressed(file, progress=np.array(self._progress), probabilities=rows)


def summarize(trace: Path, graph: ChannelGraph, path: Path) -> None:
    """Write what the report draws of a trace, where the search left one.

    `certainty` holds the share of agents in each of the `bands`, `groups` the mean probability of
    the channels of each group, both for every entry of `progress`.
    """
    if not trace.exists():
        return
    with np.load(trace, allow_pickle=False) as found:
        progress, p = found["progress"], found["probabilities"].astype(np.float64)  # (T, classes)
    bands = [
        ((p >= low) & ((p < high) | (high == BANDS[-1]))).mean(axis=1)
        for low, high in pairwise(BANDS)
    ]
    summary = {
        "progress": _rounded(progress),
        "bands": list(BANDS),
        "certainty": [_rounded(shares) for shares in np.transpose(bands)],
        "groups": [
            {
                "name": group.name,
                "agents": len(group.classes),
                "probability": _rounded(p[:, group.classes].mean(axis=1)),
            }
            for group in graph.groups
        ],
    }
    write_whole(path, json.dumps(summary))


def _rounded(values: NDArray[np.float64]) -> list[float]:
    return [round(float(value), 4) for value in values]
