"""Peak of the bytes alive at once over an execution order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Step:
    """One operator: the activation tensors that it reads and writes (no constants)."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def peak_bytes(
    steps: Sequence[Step],
    sizes: Mapping[str, int],
    graph_inputs: Iterable[str],
    graph_outputs: Iterable[str],
) -> int:
    """Largest sum of tensor sizes that must exist at the same time.

    A tensor lives from the step that writes it (a graph input from the start) to the last step
    that reads it (a graph output to the end). No workspace, alignment or fragmentation is
    counted, so a real allocator needs at least this much.
    """
    first = dict.fromkeys(graph_inputs, 0)
    last = dict.fromkeys(first, 0)
    for index, step in enumerate(steps):
        for name in step.outputs:
            first.setdefault(name, index)
        for name in (*step.inputs, *step.outputs):
            last[name] = index
    for name in graph_outputs:
        last[name] = len(steps)
    return max(
        (
            sum(sizes[name] for name in first if first[name] <= index <= last[name])
            for index in range(max(len(steps), 1))
        ),
        default=0,
    )
