"""How near a slimmed network comes to each of its limits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from compressor.cost import CostName, Limits
    from compressor.graph import ChannelGraph, Group, Keep

_UNITS = {
    "macs": (1e6, "M MACs"),
    "weight_bytes": (2**10, "KiB of weights"),
    "activation_bytes": (2**10, "KiB of activations"),
    "latency_ms": (1.0, "ms"),
}


@dataclass(frozen=True)
class Reached:
    """One limit of the search and what the slimmed network costs.

    Attributes:
        cost: name of the cost, which says its unit.
        value: of the slimmed network, before fine-tuning.
        limit: what it had to be.
        binds: it is the one most in the way of some layers being a step wider.
    """

    cost: CostName
    value: float
    limit: float
    binds: bool

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> Reached:
        """Read back what `to_json` wrote."""
        return cls(entry["cost"], entry["value"], entry["limit"], entry["binds"])

    def to_json(self) -> dict[str, Any]:
        """Return plain values, documented in docs/report.md."""
        return {**asdict(self), "share": self.share}

    @property
    def share(self) -> float:
        """Cost over limit, above 1 where the limit could not be met."""
        return self.value / self.limit

    @property
    def line(self) -> str:
        """The same for people."""
        unit, name = _UNITS[self.cost]
        role = "binds" if self.binds else "does not bind"
        if self.share > 1:
            role = "cannot be met"
        return (
            f"{self.value / unit:.4g} of {self.limit / unit:.4g} {name}, {self.share:.3f} of the "
            f"limit, which {role}"
        )


def reached(
    keep: Keep, ranking: NDArray[np.float64], graph: ChannelGraph, limits: Limits, channel_step: int
) -> tuple[Reached, ...]:
    """Compare a choice of channels with its limits.

    Every group of channels that isn't whole is tried one step wider. Where that exceeds limits, the
    one that it exceeds most binds. No limit binds where other steps would still fit.

    Args:
        keep: the choice, shape (graph.class_count,).
        ranking: what it was made by, likewise.
        limits: costs and limits; after a measurement those that agree with it.
        channel_step: multiple that kept widths are rounded to.
    """
    from compressor.cost import as_tensor

    binding: set[str] = set()
    for group in graph.groups:
        wider = _one_step_wider(keep, ranking, group, channel_step)
        ratios = {} if wider is None else limits.ratios(as_tensor(wider))
        worst = max(ratios.values(), default=0.0)
        if worst > 1:
            binding |= {name for name, ratio in ratios.items() if ratio == worst}
    values = {name: float(limits.costs.value(name, as_tensor(keep))) for name in limits.limits}
    return tuple(
        Reached(name, values[name], limit, name in binding) for name, limit in limits.limits.items()
    )


def _one_step_wider(
    keep: Keep, ranking: NDArray[np.float64], group: Group, channel_step: int
) -> Keep | None:
    """Return the choice with a group's next step; None where it is empty, whole, or has no more."""
    import numpy as np

    from compressor.decore.projection import class_step

    best_first = group.classes[np.argsort(-ranking[group.classes], kind="stable")]
    width = int(keep[group.classes].sum())
    new = best_first[width : width + class_step(group, channel_step)]
    if width == 0 or len(new) == 0 or bool(np.isneginf(ranking[new]).any()):
        return None
    wider = keep.copy()
    wider[new] = True
    return wider
