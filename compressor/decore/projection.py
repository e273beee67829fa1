"""From soft probabilities to a hard choice that meets the limits."""

from __future__ import annotations

import math
from collections import defaultdict

import numpy as np
from numpy.typing import NDArray

from compressor.cost import Limits, as_tensor
from compressor.graph import ChannelGraph, Group, Keep


class TargetError(ValueError):
    """No choice of channels meets the limits.

    Attributes:
        worst_ratio: cost of the smallest possible net over its limit; None where nothing is left
            for it.
    """

    def __init__(self, message: str, worst_ratio: float | None) -> None:
        super().__init__(message)
        self.worst_ratio = worst_ratio


def refuse_above(keep: Keep, limits: Limits, says: str) -> None:
    """Check that a choice of channels is within limits.

    Args:
        says: beginning of the error's message.

    Raises:
        TargetError: it isn't; the message says which limits it exceeds and by how much.
    """
    over = {name: r for name, r in limits.ratios(as_tensor(keep)).items() if r > 1}
    if over:
        listing = ", ".join(
            f"{name} is {ratio:.2f} times its limit" for name, ratio in over.items()
        )
        raise TargetError(says + listing, max(over.values()))


def class_step(group: Group, channel_step: int) -> int:
    """Return by how many classes a group's width moves.

    A group narrower than four steps uses the largest step that leaves it four choices.
    """
    whole = max(1, channel_step // group.multiplicity)
    return max(1, min(whole, len(group.classes) // 4))


def thresholded(
    probabilities: NDArray[np.float64], graph: ChannelGraph, threshold: float = 0.5
) -> Keep:
    """Keep what is likely enough, and the likeliest of a group that must not be empty."""
    keep: Keep = probabilities >= threshold
    for group in graph.groups:
        if not keep[group.classes].any() and not group.removable:
            keep[group.classes[np.argmax(probabilities[group.classes])]] = True
    return keep


def above_in_steps(
    scores: NDArray[np.float64],
    graph: ChannelGraph,
    channel_step: int,
    threshold: float,
    spare_steps: int = 0,
) -> Keep:
    """Keep what scores at least the threshold, every group rounded up to whole steps of width.

    Args:
        scores: shape (graph.class_count,).
        channel_step: multiple that widths are rounded to.
        threshold: lowest score that counts.
        spare_steps: steps that every group keeps beyond that.
    """
    keep = np.zeros(graph.class_count, dtype=np.bool_)
    for group in graph.groups:
        step, best_first = class_step(group, channel_step), group.classes
        best_first = best_first[np.argsort(-scores[best_first], kind="stable")]
        steps = math.ceil(int((scores[group.classes] >= threshold).sum()) / step)
        steps = max(steps + spare_steps, 0 if group.removable else 1)
        keep[best_first[: steps * step]] = True
    return keep


def project(
    ranking: NDArray[np.float64], graph: ChannelGraph, limits: Limits, channel_step: int
) -> Keep:
    """Keep the highest ranked channels that fit, in widths that are multiples of the board's step.

    Finds the smallest number of lowest ranked classes whose removal, after rounding every group to
    its steps, brings all costs within the limits; then gives steps back, best first, while they
    still fit.

    Args:
        ranking: higher is kept longer, shape (graph.class_count,); -inf for classes that are gone
            already, which must have gone in whole steps.
        limits: what must be met.
        channel_step: multiple that kept widths are rounded to.

    Returns:
        Keep set within the limits.

    Raises:
        TargetError: even the smallest net exceeds a limit; the message says which and by how much.
    """
    ladder = _Ladder(ranking, graph, channel_step)
    order = np.sort(ranking)

    def fits(keep: Keep) -> bool:
        return float(limits.load(as_tensor(keep))) <= 1.0

    there: Keep = ranking > -np.inf
    if fits(there):
        return there
    smallest = ladder.above(np.inf)
    refuse_above(smallest, limits, "the smallest possible net still misses the target: ")
    low, high = 0, len(order)  # classes dropped: `low` doesn't fit, `high` does
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(ladder.above(order[middle])) else (middle, high)
    keep = ladder.above(order[high] if high < len(order) else np.inf)
    # Wider can be cheaper: onnxruntime runs 16 channels faster than 12. So a step that didn't fit
    # is tried again together with the group's next one.
    waiting: dict[int, list[NDArray[np.int64]]] = defaultdict(list)
    for group, wider in ladder.next_steps(keep):
        waiting[group].append(wider)
        candidate = keep.copy()
        candidate[np.concatenate(waiting[group])] = True
        if fits(candidate):
            keep = candidate
            waiting[group].clear()
    return keep


class _Ladder:
    """The widths that each group may have, and which classes each width keeps."""

    def __init__(
        self, ranking: NDArray[np.float64], graph: ChannelGraph, channel_step: int
    ) -> None:
        self._ranking = ranking
        self._count = graph.class_count
        self._groups = [
            (group, group.classes[np.argsort(-ranking[group.classes], kind="stable")])
            for group in graph.groups
        ]
        self._steps = [class_step(group, channel_step) for group in graph.groups]

    def above(self, threshold: float) -> Keep:
        """Keep what ranks at or above a threshold, groups rounded to the nearest width."""
        keep = np.zeros(self._count, dtype=np.bool_)
        for (group, best_first), step in zip(self._groups, self._steps, strict=True):
            wanted = int((self._ranking[group.classes] >= threshold).sum())
            keep[best_first[: _round(wanted, len(group.classes), step, group.removable)]] = True
        return keep

    def next_steps(self, keep: Keep) -> list[tuple[int, NDArray[np.int64]]]:
        """Return (group, classes) of every further step of every group, best ranked step first."""
        steps: list[tuple[float, int, NDArray[np.int64]]] = []
        for index, (group, best_first) in enumerate(self._groups):
            step = self._steps[index]
            width = int(keep[group.classes].sum())
            score = np.inf
            while width < len(best_first):
                new = best_first[width : width + step]
                score = min(score, float(self._ranking[new].mean()))
                if score == -np.inf:
                    break  # gone already
                steps.append((score, index, new))
                width += step
        return [(group, new) for _, group, new in sorted(steps, key=lambda entry: -entry[0])]


def _round(wanted: int, full: int, step: int, removable: bool) -> int:
    if wanted == full:
        return full
    width = int(wanted / step + 0.5) * step
    return min(full, max(width, 0 if removable else min(step, full)))
