"""Channel labels: integers that say which channels must live or die together.

A label array mirrors a tensor. It is kept *narrow*: an axis along which the labels don't change has
size 1, so that a feature map of shape (1, 64, 56, 56) is described by an array of shape
(1, 64, 1, 1).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

FIXED = 0
"""The label of what can't be pruned: the network's input, its output, unknown operators."""


class LabelSpace:
    """Labels with union-find over them.

    Two labels that are united belong to one class and are kept or dropped together. A class that is
    united with ``FIXED`` is never dropped.
    """

    def __init__(self) -> None:
        self._parent: list[int] = [FIXED]

    def fresh(self, count: int) -> Tensor:
        """Return `count` new labels, shape (count,)."""
        first = len(self._parent)
        self._parent.extend(range(first, first + count))
        return torch.arange(first, first + count)

    def find(self, label: int) -> int:
        """Return the representative of a label's class; ``FIXED`` represents its own class."""
        root = label
        while self._parent[root] != root:
            root = self._parent[root]
        while self._parent[label] != root:
            self._parent[label], label = root, self._parent[label]
        return root

    def unite(self, first: Tensor, second: Tensor) -> None:
        """Unite two label arrays element by element; their shapes broadcast."""
        a, b = torch.broadcast_tensors(first, second)
        different, count = a != b, len(self._parent)
        # As one number a pair: finding the different ones among rows of two takes ten times longer.
        for pair in (a[different] * count + b[different]).unique().tolist():
            self._unite_pair(*divmod(pair, count))

    def fix(self, labels: Tensor) -> None:
        """Declare that the channels with these labels can't be dropped."""
        for label in labels.unique().tolist():
            self._unite_pair(FIXED, label)

    def all_fixed(self, labels: Tensor) -> bool:
        """Return whether none of these channels can be dropped."""
        return all(self.find(label) == FIXED for label in labels.unique().tolist())

    def roots(self, labels: Tensor) -> Tensor:
        """Return the representative of every label, same shape."""
        unique, inverse = labels.unique(return_inverse=True)
        found = torch.tensor([self.find(label) for label in unique.tolist()])
        return found[inverse]

    def all_roots(self) -> NDArray[np.int64]:
        """Return the representative of every label there is, by label."""
        roots = np.array(self._parent, dtype=np.int64)
        while not np.array_equal(above := roots[roots], roots):
            roots = above
        return roots

    def _unite_pair(self, left: int, right: int) -> None:
        a, b = self.find(left), self.find(right)
        # The smaller number wins, which keeps FIXED (0) the representative of everything fixed.
        self._parent[max(a, b)] = min(a, b)


def narrow(labels: Tensor) -> Tensor:
    """Shrink to size 1 every axis along which the labels don't change."""
    for axis in range(labels.dim()):
        if labels.shape[axis] > 1:
            first = labels.narrow(axis, 0, 1)
            if bool((labels == first).all()):
                labels = first
    return labels


def varying_axes(labels: Tensor) -> list[int]:
    """Return the axes of a narrow label array along which labels change."""
    return [axis for axis, size in enumerate(labels.shape) if size > 1]


def along_axis(labels: Tensor, axis: int, rank: int) -> Tensor:
    """Place a vector of labels, shape (n,), along one axis of a narrow array of the given rank."""
    shape = [1] * rank
    shape[axis] = labels.numel()
    return labels.reshape(shape)


def align(labels: Tensor, rank: int) -> Tensor:
    """Add leading axes of size 1, as broadcasting does, up to the given rank."""
    return labels.reshape((1,) * (rank - labels.dim()) + tuple(labels.shape))


def joint_shape(arrays: Sequence[Tensor]) -> torch.Size:
    """Return the shape that narrow arrays of one rank broadcast to."""
    return torch.broadcast_shapes(*(array.shape for array in arrays))
