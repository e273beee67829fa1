"""What the search has to reach: the user's word, budgets that bind, or as small as it goes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from compress_export.options import JobOptions

if TYPE_CHECKING:
    from compressor.cost import CostName, NetworkCosts
    from compressor.graph import ChannelGraph

MIB = 2**20
FIRST_RUNG = 0.4
"""Share of the MACs at which the search for the smallest net starts."""

DEFAULT_MAX_DROP = 1.0
LATENCY = "latency_p90_ms"

_COST_OF_BUDGET: Mapping[str, CostName] = {
    "file_size_mib": "weight_bytes",
    "weights_mib": "weight_bytes",
    "activation_memory_mib": "activation_bytes",
}


class SizedFile(Protocol):
    """What targets need to know of an exported file."""

    @property
    def name(self) -> str: ...
    @property
    def size_bytes(self) -> int: ...
    @property
    def weight_bytes(self) -> Mapping[str, int]: ...
    @property
    def activation_bytes(self) -> int: ...


@dataclass(frozen=True)
class EstimatedFile:
    """About what a file will be before it is exported: weights and activations alone."""

    name: str
    size_bytes: int
    weight_bytes: dict[str, int]
    activation_bytes: int

    @classmethod
    def unpruned(cls, name: str, costs: NetworkCosts, graph: ChannelGraph) -> EstimatedFile:
        """Estimate a quantized file of the unpruned network."""
        from compressor.cost import as_tensor

        everything = as_tensor(graph.all_kept())
        weights = int(costs.weight_bytes(everything))
        return cls(name, weights, {"all": weights}, int(costs.activation_bytes(everything)))


@dataclass(frozen=True)
class Target:
    """Limits for the search.

    Attributes:
        limits: cost name -> limit; empty where nothing has to shrink.
        why: one line for people.
        smallest: go on below the limits while accuracy stays within the drop.
    """

    limits: dict[CostName, float]
    why: str
    smallest: bool = False


def resolved_budgets(options: JobOptions, board_limits: Mapping[str, float]) -> dict[str, float]:
    """Return the board's budgets with the user's options in their place.

    `--target-size` tightens the file size, `--target-latency` the latency, `--max-drop` replaces
    the accuracy drop.
    """
    budgets = dict(board_limits)
    if options.target_size_bytes is not None:
        size_mib = options.target_size_bytes / MIB
        budgets["file_size_mib"] = min(size_mib, budgets.get("file_size_mib", size_mib))
    if options.target_latency_ms is not None:
        wanted_ms = options.target_latency_ms
        budgets[LATENCY] = min(wanted_ms, budgets.get(LATENCY, wanted_ms))
    if options.max_drop is not None:
        budgets["accuracy_drop_points"] = options.max_drop
    return budgets


def choose_target(
    options: JobOptions,
    budgets: Mapping[str, float],
    costs: NetworkCosts,
    graph: ChannelGraph,
    unpruned: Sequence[SizedFile],
    p90_ms: Mapping[str, float] | None = None,
) -> Target:
    """Decide what the search has to reach.

    In this order: `--target-macs`; `--target-size` and `--target-latency`; the budgets that the
    unpruned quantized files miss; where none binds, the smallest net within the accuracy drop, from
    0.4 of the MACs down.

    Args:
        budgets: as `resolved_budgets` returned them.
        unpruned: quantized files of the unpruned network, or estimates of them.
        p90_ms: latency of those files by name; None where it isn't known or this machine can't
            speak for the board.
    """
    from compressor.cost import as_tensor

    everything = as_tensor(graph.all_kept())
    macs = float(costs.macs(everything))
    if options.target_macs is not None:
        return Target({"macs": options.target_macs * macs}, f"{options.target_macs:g} of the MACs")
    estimates = {name: float(costs.value(name, everything)) for name in _COST_OF_BUDGET.values()}
    limits, reasons = _missed(budgets, estimates, unpruned)
    for name, ms in (p90_ms or {}).items():
        limit_ms = budgets.get(LATENCY, float("inf"))
        if ms > limit_ms:
            limits["latency_ms"] = limit_ms
            reasons.append(f"{name} misses {LATENCY} ({ms:.3g} of {limit_ms:.3g} ms)")
    wishes = _wishes(options)
    if wishes:
        limits = {k: v for k, v in limits.items() if k in wishes}
        text = " and ".join(wishes.values()) + " for each quantized file"
        if "latency_ms" in wishes and p90_ms is None:
            return Target(limits, f"{text}; the unpruned files are yet to be timed")
        return Target(limits, text if limits else f"{text}, which the unpruned files already meet")
    if limits:
        return Target(limits, "the board's budgets: " + ", ".join(reasons))
    drop = budgets.get("accuracy_drop_points", DEFAULT_MAX_DROP)
    why = f"the smallest net within {drop:g} points, as no budget binds"
    return Target({"macs": FIRST_RUNG * macs}, why, smallest=True)


def _wishes(options: JobOptions) -> dict[CostName, str]:
    """Return the user's own limits for the files: cost name -> words."""
    wishes: dict[CostName, str] = {}
    if options.target_size_bytes is not None:
        wishes["weight_bytes"] = f"{options.target_size_bytes / MIB:.3g} MiB"
    if options.target_latency_ms is not None:
        wishes["latency_ms"] = f"{options.target_latency_ms:.3g} ms"
    return wishes


def _missed(
    budgets: Mapping[str, float], estimates: Mapping[CostName, float], unpruned: Sequence[SizedFile]
) -> tuple[dict[CostName, float], list[str]]:
    """Return limits for the budgets that the unpruned files miss, in units of the costs."""
    limits: dict[CostName, float] = {}
    reasons: list[str] = []
    for budget, cost in _COST_OF_BUDGET.items():
        for file in unpruned:
            limit = budgets.get(budget, float("inf")) * MIB
            value = _figure(file, budget)
            if value <= limit:
                continue
            if cost == "weight_bytes":
                # What a file holds beside the weights (graph, scales) stays.
                allowed = limit - (value - estimates[cost])
            else:
                allowed = limit * estimates[cost] / value
            limits[cost] = min(allowed, limits.get(cost, float("inf")))
            reasons.append(
                f"{file.name} misses {budget} ({value / MIB:.3g} of {limit / MIB:.3g} MiB)"
            )
    return limits, reasons


def _figure(file: SizedFile, budget: str) -> float:
    if budget == "file_size_mib":
        return float(file.size_bytes)
    if budget == "weights_mib":
        return float(sum(file.weight_bytes.values()))
    return float(file.activation_bytes)
