"""What the search has to reach: the user's word, budgets that bind, or as small as it goes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from compress_export.options import JobOptions

if TYPE_CHECKING:
    from torch import Tensor

    from boards import Board
    from compressor.cost import CostName, NetworkCosts
    from compressor.graph import ChannelGraph

MIB = 2**20
BYTES_PER_VALUE: Mapping[str, tuple[float, float]] = {
    "float32": (4, 4),
    "float16": (2, 2),
    "int8": (1, 1),
    "int8-dynamic": (1, 4),
    "int8-weights": (1, 4),
    "int4-weights": (0.5, 4),
    "int2-weights": (0.25, 4),
    "int8-int16": (1, 2),
}
"""Of a weight and of an activation, by the precision of a file."""

FIRST_RUNG = 0.4
"""Share of the MACs at which the search for the smallest net starts."""

DEFAULT_MAX_DROP = 1.0
LATENCY = "latency_p90_ms"

COST_OF_BUDGET: Mapping[str, CostName] = {
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


def channel_step(board: Board, precision: str) -> int:
    """Return what kept widths are multiples of: the board's step for the file's arithmetic."""
    arithmetic = "float32" if precision.endswith("-weights") else precision.partition("-")[0]
    steps: dict[str, int] = dict(board.channel_steps.items())
    return steps.get(arithmetic, steps[board.target_precision])


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

    The share of `--target-macs`, and all budgets that the unpruned quantized files miss, with
    `--target-size` and `--target-latency` among them. Where nothing was wished for and nothing is
    missed, the smallest net within the accuracy drop, from 0.4 of the MACs down.

    Args:
        budgets: as `resolved_budgets` returned them.
        unpruned: quantized files of the unpruned network, or estimates of them.
        p90_ms: latency of those files by name; None where it isn't known or this machine can't
            speak for the board.
    """
    from compressor.cost import as_tensor

    everything = as_tensor(graph.all_kept())
    macs = float(costs.macs(everything))
    allowed = byte_limits(budgets, costs, everything, unpruned)
    missed = _missed(budgets, unpruned, p90_ms or {})
    if LATENCY in budgets:
        allowed["latency_ms"] = budgets[LATENCY]
    limits = {cost: allowed[cost] for cost, _ in missed}
    wishes = " and ".join(_wishes(options))
    if options.target_macs is not None:
        limits["macs"] = options.target_macs * macs
    if not wishes and not limits:
        drop = budgets.get("accuracy_drop_points", DEFAULT_MAX_DROP)
        why = f"the smallest net within {drop:g} points, as no budget binds"
        return Target({"macs": FIRST_RUNG * macs}, why, smallest=True)
    reasons = ", ".join(words for _, words in missed)
    if not wishes:
        return Target(limits, f"the board's budgets: {reasons}")
    if options.target_latency_ms is not None and p90_ms is None:
        wishes += "; the unpruned files are yet to be timed"
    elif not limits:
        wishes += ", which the unpruned files already meet"
    return Target(limits, f"{wishes}; {reasons}" if reasons else wishes)


def _wishes(options: JobOptions) -> list[str]:
    """Return the user's own limits in words."""
    wishes = []
    if options.target_macs is not None:
        wishes.append(f"{options.target_macs:g} of the MACs")
    if options.target_size_bytes is not None:
        wishes.append(f"{options.target_size_bytes / MIB:.3g} MiB for each quantized file")
    if options.target_latency_ms is not None:
        wishes.append(f"{options.target_latency_ms:.3g} ms for each quantized file")
    return wishes


def byte_limits(
    budgets: Mapping[str, float], costs: NetworkCosts, keep: Tensor, files: Sequence[SizedFile]
) -> dict[CostName, float]:
    """Return what the costs in bytes may be so that files meet their budgets.

    Args:
        keep: the network that the files were made of, shape (class_count,).

    Returns:
        Cost name -> limit, where there is a budget; not positive where what a file holds beside its
        weights is too much by itself.
    """
    limits: dict[CostName, float] = {}
    for budget, cost in COST_OF_BUDGET.items():
        estimate = float(costs.value(cost, keep))
        for file in files if budget in budgets else ():
            limit, value = budgets[budget] * MIB, _figure(file, budget)
            if cost == "weight_bytes":
                # What a file holds beside the weights (graph, scales) stays.
                allowed = limit - (value - estimate)
            else:
                allowed = limit * estimate / value
            limits[cost] = min(allowed, limits.get(cost, float("inf")))
    return limits


def _missed(
    budgets: Mapping[str, float], unpruned: Sequence[SizedFile], p90_ms: Mapping[str, float]
) -> list[tuple[CostName, str]]:
    """Return the costs whose budgets the unpruned files miss, each with words."""
    found: list[tuple[CostName, str]] = []
    for budget, cost in COST_OF_BUDGET.items():
        limit_mib = budgets.get(budget, float("inf"))
        for file in unpruned:
            value_mib = _figure(file, budget) / MIB
            if value_mib > limit_mib:
                words = f"{file.name} misses {budget} ({value_mib:.3g} of {limit_mib:.3g} MiB)"
                found.append((cost, words))
    limit_ms = budgets.get(LATENCY, float("inf"))
    found += [
        ("latency_ms", f"{name} misses {LATENCY} ({ms:.3g} of {limit_ms:.3g} ms)")
        for name, ms in p90_ms.items()
        if ms > limit_ms
    ]
    return found


def _figure(file: SizedFile, budget: str) -> float:
    if budget == "file_size_mib":
        return float(file.size_bytes)
    if budget == "weights_mib":
        return float(sum(file.weight_bytes.values()))
    return float(file.activation_bytes)
