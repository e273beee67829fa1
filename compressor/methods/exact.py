"""Only what does nothing goes: a choice that costs no accuracy and knows no target."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from compressor.cost import as_tensor
from compressor.decore.projection import TargetError
from compressor.methods.dead import remove_dead
from compressor.methods.method import Choice, PruneTask


def dead_only(task: PruneTask) -> Choice:
    """Drop dead and constant channels, in no steps of width: nobody else would fill a step up.

    Raises:
        TargetError: what is left exceeds a limit.
    """
    start = task.start
    cleaned = remove_dead(start.model, start.graph, task.images, task.compute)
    classes = start.classes[cleaned.left.classes]
    keep = np.zeros(task.graph.class_count, dtype=np.bool_)
    keep[classes] = True
    over = {name: r for name, r in task.limits.ratios(as_tensor(keep)).items() if r > 1}
    if over:
        listing = ", ".join(
            f"{name} is {ratio:.2f} times its limit" for name, ratio in over.items()
        )
        raise TargetError(f"without its dead channels, {listing}", max(over.values()))
    difference = max(start.difference, cleaned.left.difference)
    left = replace(cleaned.left, classes=classes, difference=difference)
    return Choice(left, keep, np.where(keep, 0.0, -np.inf))
