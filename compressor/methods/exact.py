"""Only what does nothing goes: a choice that costs no accuracy and knows no target."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from compressor.decore.projection import refuse_above
from compressor.methods.dead import find_dead
from compressor.methods.method import Choice, PruneTask


def dead_only(task: PruneTask) -> Choice:
    """Drop dead and constant channels, in no steps of width: nobody else would fill a step up.

    Raises:
        TargetError: what is left exceeds a limit.
    """
    start = task.start
    found = find_dead(start.model, start.graph, task.images, task.compute)
    keep = np.zeros(task.graph.class_count, dtype=np.bool_)
    keep[start.classes[found.keep]] = True
    refuse_above(keep, task.limits, "without its dead channels, ")
    return Choice(replace(start, model=found.folded), keep, np.where(keep, 0.0, -np.inf))
