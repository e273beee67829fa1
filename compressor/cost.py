"""What a network costs as a function of which channels stay: MACs, bytes, milliseconds.

Every cost is defined for keep probabilities as well as for hard choices. With independent agents
the expectation of a product of two layers' widths is taken as the product of their expectations,
which is exact where a layer's inputs and outputs belong to different agents. Hard choices are
always exact.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from compressor.graph import ChannelGraph, Keep
from compressor.latency import LatencyCost, LatencyTable, counts

CostName = Literal["macs", "weight_bytes", "activation_bytes", "latency_ms"]

BIAS_BYTES = 4
"""Both INT8 formats store biases as 32-bit integers."""


class NetworkCosts:
    """The costs of one network, differentiable in the keep probabilities.

    Args:
        graph: the network's channel graph.
        bytes_per_weight: 1 for INT8, 2 for FP16, 4 for FP32.
        bytes_per_activation: likewise for feature maps.
        latency: a table for each file format that has to be fast, measured for this network.
    """

    def __init__(
        self,
        graph: ChannelGraph,
        bytes_per_weight: float = 1,
        bytes_per_activation: float = 1,
        latency: Sequence[LatencyTable] = (),
    ) -> None:
        layers, maps, count = graph.layers, graph.feature_maps, graph.class_count
        self._inputs = counts([layer.in_classes for layer in layers], count)
        self._outputs = counts([layer.out_classes for layer in layers], count)
        depthwise = torch.tensor([layer.depthwise for layer in layers])
        groups = torch.tensor([float(layer.groups) for layer in layers], dtype=torch.float64)
        self._depthwise, self._groups = depthwise, groups
        self._macs = _column([layer.macs_per_pair for layer in layers])
        self._weights = _column([layer.weights_per_pair for layer in layers]) * bytes_per_weight
        self._biases = _column([layer.has_bias * BIAS_BYTES for layer in layers])
        self._maps = counts([entry.classes for entry in maps], count)
        self._elements = _column([entry.elements_per_channel for entry in maps])
        self._elements *= bytes_per_activation
        born, dies = _column([m.born for m in maps]), _column([m.dies for m in maps])
        # (moments, maps): which feature maps are alive while each of them is being made
        self._alive = ((born[None] <= born[:, None]) & (dies[None] >= born[:, None])).double()
        self._graph, self._tables = graph, tuple(latency)
        self._latency = [LatencyCost(graph, table) for table in latency]

    def macs(self, keep: Tensor) -> Tensor:
        """Return expected multiply-accumulates for one image; keep has shape (class_count,)."""
        return self.layer_macs(keep).sum()

    def weight_bytes(self, keep: Tensor) -> Tensor:
        """Return expected bytes of weights and biases."""
        biases = self._biases * (self._outputs @ _with_fixed(keep))
        return (self._weights * self._pairs(keep) + biases).sum()

    def activation_bytes(self, keep: Tensor) -> Tensor:
        """Return the expected peak of live feature maps, for one image.

        A lower bound of a runtime's memory: the sum of the tensors alive at the worst moment of the
        order of execution, with activations and batch norm done in place.
        """
        sizes = self._elements * (self._maps @ _with_fixed(keep))
        return (self._alive @ sizes).max()

    def latencies_ms(self, keep: Tensor) -> Tensor:
        """Return expected milliseconds by each latency table, shape (tables,)."""
        full = _with_fixed(keep)
        return torch.stack([table.milliseconds(full) for table in self._latency])

    def latency_ms(self, keep: Tensor) -> Tensor:
        """Return expected milliseconds in the slowest of the file formats.

        Raises:
            ValueError: no latency table was given.
        """
        if not self._latency:
            raise ValueError("latency_ms needs a latency table")
        return self.latencies_ms(keep).max()

    def calibrated(self, keep: Tensor, measured_ms: Sequence[float]) -> NetworkCosts:
        """Return costs whose latency tables agree with a network that was measured as a whole.

        Args:
            keep: the measured network.
            measured_ms: its latency by each table's runtime.
        """
        pairs = zip(self._tables, measured_ms, self.latencies_ms(keep).tolist(), strict=True)
        same = copy.copy(self)
        same._tables = tuple(table.scaled(ms / predicted) for table, ms, predicted in pairs)
        same._latency = [LatencyCost(self._graph, table) for table in same._tables]
        return same

    def value(self, name: CostName, keep: Tensor) -> Tensor:
        """Return one of the costs by name."""
        functions = {
            "macs": self.macs,
            "weight_bytes": self.weight_bytes,
            "activation_bytes": self.activation_bytes,
            "latency_ms": self.latency_ms,
        }
        return functions[name](keep)

    def shares(self, shares: Mapping[CostName, float], keep: Tensor) -> dict[CostName, float]:
        """Return shares of what a keep set costs, by name: limits for a smaller one."""
        return {name: share * float(self.value(name, keep)) for name, share in shares.items()}

    def layer_macs(self, keep: Tensor) -> Tensor:
        """Return multiply-accumulates of every layer, shape (layers,)."""
        return self._macs * self._pairs(keep)

    def _pairs(self, keep: Tensor) -> Tensor:
        """Return (input, output) channel pairs of every layer that a weight connects."""
        full = _with_fixed(keep)
        outputs = self._outputs @ full
        inputs = torch.where(self._depthwise, torch.ones_like(outputs), self._inputs @ full)
        return inputs * outputs / self._groups


@dataclass(frozen=True)
class Limits:
    """What must not be exceeded, in the units of `NetworkCosts`.

    Attributes:
        costs: the network's cost functions.
        limits: cost name -> limit, all positive; empty means no limit at all.
    """

    costs: NetworkCosts
    limits: Mapping[CostName, float]

    def __post_init__(self) -> None:
        for name, limit in self.limits.items():
            if limit <= 0:
                raise ValueError(f"limit of {name} is {limit}, must be positive")

    def load(self, keep: Tensor) -> Tensor:
        """Return the worst ratio of cost to limit: at most 1 when all limits are met."""
        ratios = [self.costs.value(name, keep) / limit for name, limit in self.limits.items()]
        return torch.stack(ratios).max() if ratios else keep.sum() * 0.0

    def ratios(self, keep: Tensor) -> dict[str, float]:
        """Return cost / limit by name."""
        return {name: float(self.costs.value(name, keep) / at) for name, at in self.limits.items()}


def as_tensor(keep: Keep) -> Tensor:
    """Return a hard keep set as a float64 tensor for cost functions."""
    return torch.from_numpy(keep.astype(np.float64))


def _with_fixed(keep: Tensor) -> Tensor:
    return torch.cat((keep.double(), keep.new_ones(1, dtype=torch.float64)))


def _column(values: list[int]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)
