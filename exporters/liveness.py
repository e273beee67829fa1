"""The bytes alive at once over an execution order, and their peak."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate


@dataclass(frozen=True)
class Step:
    """One operator: the activation tensors that it reads and writes (no constants).

    Attributes:
        name: of the kind of operator, such as Conv.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    name: str = ""


@dataclass(frozen=True)
class Schedule:
    """All that liveness needs to know of a file, at batch 1.

    Attributes:
        steps: operators in order of execution.
        sizes: tensor -> bytes.
        inputs, outputs: tensors of the graph.
    """

    steps: tuple[Step, ...]
    sizes: Mapping[str, int]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    def live_bytes(self) -> list[int]:
        """Return `live_bytes` of its steps."""
        return live_bytes(self.steps, self.sizes, self.inputs, self.outputs)


def live_bytes(
    steps: Sequence[Step],
    sizes: Mapping[str, int],
    graph_inputs: Iterable[str],
    graph_outputs: Iterable[str],
) -> list[int]:
    """Return the sum of the sizes that must exist while each step runs, one entry per step.

    A tensor lives from the step that writes it (a graph input from the start) to the last step
    that reads it (a graph output to the end). No workspace, alignment or fragmentation is
    counted, so a real allocator needs at least the largest entry. Without any step the one entry
    is the inputs'.
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
    born, dying = [0] * (len(steps) + 2), [0] * (len(steps) + 2)
    for name, index in first.items():
        born[index] += sizes[name]
        dying[last[name] + 1] += sizes[name]
    changes = (b - d for b, d in zip(born, dying, strict=True))
    return list(accumulate(changes))[: max(len(steps), 1)]
