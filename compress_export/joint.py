"""`--precision joint`: pruning and precision are chosen together.

At one budget of bytes a network of 4 bits may keep about twice the weights of one of 8. So the
baseline is pruned anew for every precision to which a budget means something else; all files are
made and measured, and the network whose files are best goes to the board.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from compress_export.exporting import why_not_all
from compress_export.latency_target import no_tables
from compress_export.precision_choice import Candidate, choose, possible
from compress_export.targets import BYTES_PER_VALUE, COST_OF_BUDGET, channel_step

if TYPE_CHECKING:
    from boards import Board
    from boards.parts import FilePrecision
    from compress_export.job import Job
    from compressor.cost import CostName


def precision_groups(
    board: Board, formats: Sequence[str], binding: Collection[CostName]
) -> list[tuple[FilePrecision, ...]]:
    """Return the precisions to choose from, those together that the budgets treat alike.

    The first of a group is what is pruned for, the board's own comes first of all. Precisions with
    more bytes a weight than that are left out where bytes alone bind: they would keep fewer weights
    for the sake of digits that hardly count. So are those without latency tables where it binds.

    Args:
        binding: costs that limit the search for the board's own precision.
    """
    budgeted = {cost for name, cost in COST_OF_BUDGET.items() if name in board.budgets.limits()}
    timed = "latency_ms" in binding
    groups: dict[tuple[object, ...], list[FilePrecision]] = {}
    for name in _worth_pruning_for(board, formats, binding):
        if any(name not in possible(board, format) for format in formats):
            continue
        weight_bytes, activation_bytes = BYTES_PER_VALUE[name]
        key = (
            weight_bytes if "weight_bytes" in budgeted else None,
            activation_bytes if "activation_bytes" in budgeted else None,
            name if timed else None,
            channel_step(board, name),
        )
        groups.setdefault(key, []).append(name)
    return [tuple(names) for names in groups.values()]


def remarks(board: Board, formats: Sequence[str], binding: Collection[CostName]) -> list[str]:
    """Return a line for every precision that one of the formats keeps out of `precision_groups`.

    The network that is taken has files of all formats: pruned for 4 bits, it would be too large in
    a format whose files have 8. One more line says where a single network is left to choose.
    """
    found = [
        f"{name} is left out: {reason}"
        for name in _worth_pruning_for(board, formats, binding)
        if (reason := why_not_all(board, formats, name)) is not None
    ]
    first, *others = precision_groups(board, formats, binding)
    if not others:
        found.append(f"{first[0]} alone is pruned for: the choice is that of --precision auto")
    return found


def _worth_pruning_for(
    board: Board, formats: Sequence[str], binding: Collection[CostName]
) -> list[FilePrecision]:
    """Return the precisions that any of the formats can have and budgets don't rule out."""
    own_bytes, _ = BYTES_PER_VALUE[board.target_precision]
    return [
        name
        for name in dict.fromkeys(name for format in formats for name in possible(board, format))
        if (
            no_tables(name) is None
            if "latency_ms" in binding
            else BYTES_PER_VALUE[name][0] <= own_bytes
        )
    ]


def way_for(job: Job, precisions: Sequence[FilePrecision]) -> Job:
    """Return a job that prunes for the first precision and has files of all of them."""
    return replace(
        job,
        exports=replace(job.exports, precision=precisions[0]),
        branch=precisions[0],
        candidates=tuple(precisions),
        stops_at_budgets=bool(job.ways),
        checks=[],
        warnings=[],
        ways=[],
        sharing=None,
    )


def best_way(job: Job, found: Sequence[Candidate]) -> Job:
    """Return the way whose best files miss the fewest budgets, then are most accurate, then small.

    A way without a file in some format is taken only if there is no other.
    """

    def worth(way: Job) -> tuple[float, ...]:
        own = [c for c in found if c.pruned_for == way.branch]
        by_format = [[c for c in own if c.format == name] for name in job.exports.formats]
        best = [choose(files, way.exports.precision) for files in by_format if files]
        return (
            len(best) - len(by_format),
            -sum(len(c.missed) for c in best),
            sum(c.validation_score or 0.0 for c in best),
            -sum(c.size_bytes for c in best),
        )

    return max(job.ways, key=worth)


def take_way(job: Job, way: Job, folder: Path) -> None:
    """Make one way the job's; files that only the others have are removed.

    Args:
        folder: of the files in `job.reference`.
    """
    job.log.say(f"joint: the network pruned for {way.branch} is the best")
    job.pruned, job.target, job.exports = way.pruned, way.target, way.exports
    job.first_aid, job.quantization, job.branch = way.first_aid, way.quantization, way.branch
    if way.pruned is not None:
        job.save_network(way.pruned.model, "slim")
    job.checks += way.checks
    job.warnings += way.warnings
    others = [other for other in job.ways if other is not way]
    for file in [file for file in job.reference if file.stage == "slim"]:
        if any(file.precision in other.candidates for other in others):
            job.reference.remove(file)
            for name in file.paths:
                (folder / name).unlink()
