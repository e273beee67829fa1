"""From costs that are estimates to files that meet the limits: choose, measure, choose again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from compressor.cost import Limits
    from compressor.graph import Keep

MOST_CORRECTIONS = 3
TOLERANCE = 0.02
"""Share of a limit by which the measured network may stay below it."""


@dataclass(frozen=True)
class Met:
    """A choice of channels that was measured as a whole.

    Attributes:
        keep: the channels.
        limits: corrected, so that they say of `keep` what was measured.
        measurements: how many networks were measured.
    """

    keep: Keep
    limits: Limits
    measurements: int

    @property
    def load(self) -> float:
        """Worst ratio of a measured cost to its limit."""
        from compressor.cost import as_tensor

        return float(self.limits.load(as_tensor(self.keep)))


def meet(
    choose: Callable[[Limits], Keep],
    limits: Limits,
    correct: Callable[[Keep, Limits], Limits],
    say: Callable[[str], None],
) -> Met:
    """Choose channels until the measured network meets the limits with nothing to spare.

    Measures what was chosen; where it exceeds a limit, or stays below all of them by more than
    `TOLERANCE`, chooses again by what was learned, at most `MOST_CORRECTIONS` times. Ends early
    where the choice stays the same, as no wider step fits.

    Args:
        choose: such as `project` of one ranking.
        correct: measures a network and returns the limits in agreement with it.
        say: is told each measurement.

    Returns:
        The largest choice within the limits; where none is, the one that exceeds them least.

    Raises:
        TargetError: raised by `choose`, when even the first choice fails. A later failure ends the
            corrections.
    """
    from compressor.cost import as_tensor
    from compressor.decore.projection import TargetError

    tried: list[Met] = []
    keep = choose(limits)
    for number in range(1 + MOST_CORRECTIONS):
        limits = correct(keep, limits)
        tried.append(Met(keep, limits, number + 1))
        ratios = limits.ratios(as_tensor(keep)).items()
        listing = ", ".join(f"{name} {ratio:.3f}" for name, ratio in ratios)
        say(f"measured before fine-tuning, in shares of the limits: {listing}")
        if 1 - TOLERANCE <= tried[-1].load <= 1:
            break
        try:
            following = choose(limits)
        except TargetError as error:
            say(f"target: {error}")
            break
        if any((following == before.keep).all() for before in tried):
            break
        keep = following
    return _best(tried)


def _best(tried: Sequence[Met]) -> Met:
    within = [met for met in tried if met.load <= 1 + 1e-9]
    if within:
        return max(within, key=lambda met: met.load)
    return min(tried, key=lambda met: met.load)
