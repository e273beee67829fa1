"""Finished runs put together: one entry per network, target and method, over its seeds."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.pruning import results

OURS = "decore"
"""The default agents: what every other method is compared with."""

CONTINUED = "continued"
"""The unpruned network, trained on for as long as the others."""

PEER, OWN_RECIPE = "tp-", "-own"
"""How the names of Torch-Pruning's variants begin, and end where the recipe is its own, too."""

Row = dict[str, Any]


@dataclass(frozen=True, order=True)
class Target:
    """What methods must share to be compared.

    Attributes:
        network: key of `setting.NETWORKS`.
        epochs: search and fine-tuning together.
        cost: what is limited.
        share: of that cost that may remain.
    """

    network: str
    epochs: int
    cost: str
    share: float


@dataclass(frozen=True)
class Entry:
    """One method at one target.

    Attributes:
        target: where it was run.
        method: its variant, with whatever tells it from another entry of that variant.
        variant: key of `variants.VARIANTS`.
        rows: of the results file, by seed.
    """

    target: Target
    method: str
    variant: str
    rows: Mapping[int, Row]

    @property
    def is_peer(self) -> bool:
        """Another library chose the channels."""
        return self.variant.startswith(PEER)

    @property
    def own_recipe(self) -> bool:
        """That library's recipe recovered the network, too."""
        return self.is_peer and self.variant.endswith(OWN_RECIPE)

    def values(self, *path: str) -> list[float] | None:
        """Return a figure of every seed, in the seeds' order; None where a row lacks it.

        Args:
            path: keys from the row down to it; of a mapping at its end, the sum is the figure.
        """
        found = [_at(row, path) for _, row in sorted(self.rows.items())]
        return None if any(value is None for value in found) else [float(v) for v in found]

    def mean(self, *path: str) -> float | None:
        """Return a figure's mean over seeds; None where a row lacks it."""
        values = self.values(*path)
        return None if values is None else float(np.mean(values))

    def right(self) -> dict[int, NDArray[np.bool_]]:
        """Return seed -> which test images were answered rightly, bool (N,)."""
        return {seed: right_answers(row) for seed, row in self.rows.items()}


def read_entries(path: Path) -> list[Entry]:
    """Read a results file of `compare.py`, sorted by target, then as the runs came."""
    rows = list(results.rows(path))
    grouped: dict[tuple[Target, str, str], dict[int, Row]] = {}
    for row, method in zip(rows, _methods(rows), strict=True):
        grouped.setdefault((_target(row), method, row["variant"]), {})[row["seed"]] = row
    entries = [Entry(*key, found) for key, found in grouped.items()]
    return sorted(entries, key=lambda entry: _order(entry.target))


def by_target(entries: Sequence[Entry]) -> dict[Target, list[Entry]]:
    """Group the pruned entries; the continued baselines are `continued_of`."""
    grouped: dict[Target, list[Entry]] = {}
    for entry in entries:
        if entry.variant != CONTINUED:
            grouped.setdefault(entry.target, []).append(entry)
    return grouped


def rows_of(entries: Sequence[Entry]) -> list[Row]:
    """Return the rows of entries."""
    return [row for entry in entries for row in entry.rows.values()]


def continued_of(entries: Sequence[Entry], target: Target) -> Entry | None:
    """Return the network trained on for as many epochs as this target's methods."""
    for entry in entries:
        same = (entry.target.network, entry.target.epochs) == (target.network, target.epochs)
        if entry.variant == CONTINUED and same:
            return entry
    return None


def right_answers(row: Row) -> NDArray[np.bool_]:
    """Unpack which test images a row's network answers rightly, bool (N,)."""
    packed = row["test_right"]
    bits = results.unpack(packed, 8 * len(packed))
    return bits[: round(bits.sum() / row["test_top1"])]


def read_json(path: Path) -> Row | None:
    """Read a results file that is one JSON object; None where it doesn't exist yet."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def _target(row: Row) -> Target:
    return Target(row["network"], row["epochs"], row["cost"], row["share"])


def _order(target: Target) -> tuple[int, str, int, str, float]:
    """Small networks first, then from the largest share to the smallest."""
    size = int("".join(c for c in target.network if c.isdigit()) or 0)
    return size, target.network, target.epochs, target.cost, -target.share


def _methods(rows: Sequence[Row]) -> list[str]:
    """Name every row's method: the variant, and its settings unless they are its usual ones."""
    settings: dict[tuple[str, int, str], Counter[tuple[int, float]]] = {}
    for row in rows:
        settings.setdefault(_variant(row), Counter())[_setting(row)] += 1
    names = []
    for row in rows:
        ((usual, _),) = settings[_variant(row)].most_common(1)
        search, rate = _setting(row)
        unusual = f" (search {search}, rate {rate:g})" if (search, rate) != usual else ""
        names.append(row["variant"] + unusual)
    return names


def _variant(row: Row) -> tuple[str, int, str]:
    return row["network"], row["epochs"], row["variant"]


def _setting(row: Row) -> tuple[int, float]:
    return row["search_epochs"], row["learning_rate"]


def _at(row: Row, path: Sequence[str]) -> Any:
    found: Any = row
    for key in path:
        if not isinstance(found, Mapping) or key not in found:
            return None
        found = found[key]
    return sum(found.values()) if isinstance(found, Mapping) else found
