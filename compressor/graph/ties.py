"""What follows for channels where modules share a parameter."""

from __future__ import annotations

from collections.abc import Collection

from torch import nn

from compressor.graph.recorder import Recorder
from compressor.tied import shared_parameters


def unite_shared(model: nn.Module, recorder: Recorder) -> None:
    """Unite what the owners of one parameter have along each of its axes, so that it is cut once.

    Where one of them can't be cut, the others keep their channels, too.
    """
    for owners in shared_parameters(model):
        axes = {key[2] for key in recorder.slices if key[:2] in owners}
        for axis in sorted(axes):
            known = {
                owner[0]: recorder.slices[*owner, axis]
                for owner in owners
                if (*owner, axis) in recorder.slices
            }
            (first, labels), *others = known.items()
            for _, other in others:
                recorder.space.unite(labels, other)
            if len(known) < len(owners):
                recorder.fix(first, labels, "another module that can't be cut shares its weights")


def stored_elsewhere(
    model: nn.Module, recorder: Recorder, with_norm: Collection[str]
) -> frozenset[str]:
    """Return the layers whose weight a file holds already, for another layer.

    Args:
        with_norm: layers that a batch norm is folded into, which gives them weights of their own.
    """
    found: set[str] = set()
    for owners in shared_parameters(model):
        layers = [
            module
            for module, name in owners
            if name == "weight" and module in recorder.layers and module not in with_norm
        ]
        found.update(layers[1:])
    return frozenset(found)
