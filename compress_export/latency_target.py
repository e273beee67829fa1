"""A latency budget in the search: when it can be searched for, and how it is met in the end."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from compress_export.options import JobOptions

if TYPE_CHECKING:
    from torch import nn

    from boards import Board
    from compress_export.exporting import Exports
    from compressor.cost import Limits
    from compressor.graph import Keep
    from exporters import Exported

MOST_CORRECTIONS = 3
TOLERANCE = 0.02
"""Share of the wanted latency by which a measured network may miss it either way."""

_REPEATS = 4


def why_not_searchable(board: Board) -> str | None:
    """Return why this machine can't tell how fast a network is on the board; None where it can."""
    from runtime_bench import BoardRef, host_facts, host_matches
    from runtime_bench.host import missing_isa

    host = host_facts()
    reference = BoardRef(board.id, board.kind, board.cpu.arch, board.cpu.isa, board.cpu.cores)
    if host_matches(host, reference):
        if board.target_precision == "float16":
            return "latency in float16 has no tables"
        return None
    if host.arch != board.cpu.arch:
        return f"this machine is {host.arch}, board {board.id} is {board.cpu.arch}"
    return f"this machine lacks {', '.join(missing_isa(host, reference))} of board {board.id}"


def refuse_unsearchable(options: JobOptions, board: Board) -> None:
    """Refuse `--target-latency` before any work where latency can't be measured.

    Raises:
        UsageError: with the reason.
    """
    from compress_export.errors import UsageError

    reason = why_not_searchable(board) if options.target_latency_ms is not None else None
    if reason is not None:
        raise UsageError(
            f"--target-latency {options.target_latency_ms:g}ms: {reason}; run this on the board, "
            "or give --target-macs"
        )


def files_p90_ms(
    exports: Exports,
    folder: Path,
    files: Sequence[Exported],
    *,
    threads: int,
    runs: int,
) -> dict[str, float]:
    """Measure files of one precision on this machine as the bench will: format -> p90 in ms.

    Measures several times over and takes the smallest, which is what the files need when nothing
    else disturbs the machine.

    Args:
        folder: where the files lie; it needs no manifest and stays as it is.
        files: at most one of each format.
        threads: of one operator.
        runs: timed runs of each file, all in all.

    Raises:
        BenchError: a file can't be loaded or run.
    """
    from runtime_bench import BenchError, measure_folder

    with tempfile.TemporaryDirectory() as name:
        aside = Path(name)
        for path in (path for file in files for path in (file.path, *file.side_files)):
            (aside / path).symlink_to((folder / path).resolve())
        exports.finish_reference(aside, files)
        best_ms: dict[str, float] = {}
        for _ in range(_REPEATS):
            for file in measure_folder(aside, threads=threads, runs=max(1, runs // _REPEATS)):
                if file.latency_ms is None:
                    raise BenchError(f"{file.name}: {file.note}")
                p90_ms = file.latency_ms["p90"]
                best_ms[file.format] = min(p90_ms, best_ms.get(file.format, p90_ms))
    return best_ms


def network_p90_ms(
    exports: Exports, model: nn.Module, *, threads: int, runs: int
) -> tuple[float, ...]:
    """Export a network as it is and measure its files: p90 in ms, in the order of the formats.

    Accuracy doesn't matter to latency, so a network can be measured before it is fine-tuned.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = exports.write(model, "slim", folder, [exports.precision])
        found = files_p90_ms(exports, folder, files, threads=threads, runs=runs)
    return tuple(found[file_format] for file_format in exports.formats)


@dataclass(frozen=True)
class Met:
    """A choice of channels that was measured as a whole.

    Attributes:
        keep: the channels.
        measured_ms: by each latency table's runtime.
        limits: with the tables in agreement with the measurement.
        measurements: how many networks were measured.
    """

    keep: Keep
    measured_ms: tuple[float, ...]
    limits: Limits
    measurements: int

    @property
    def slowest_ms(self) -> float:
        return max(self.measured_ms)


def meet_latency(
    choose: Callable[[Limits], Keep],
    limits: Limits,
    measure: Callable[[Keep], Sequence[float]],
    say: Callable[[str], None],
) -> Met:
    """Choose channels until the measured network is as fast as wanted, and not faster.

    Measures what was chosen; where that misses the latency by more than `TOLERANCE` either way,
    makes the tables agree with the measurement and chooses again, at most `MOST_CORRECTIONS`
    times. Ends early where the choice stays the same (another limit binds, or the step between two
    widths is wider).

    Args:
        choose: such as `project` of one ranking; gets the limits with corrected costs.
        limits: with a limit for "latency_ms".
        measure: milliseconds of a network, by each latency table's runtime.
        say: is told each measurement.

    Returns:
        The slowest choice that is fast enough; where none is, the fastest.

    Raises:
        TargetError: raised by `choose`, when even the first choice fails. A later failure ends the
            corrections.
    """
    from compressor.cost import Limits, as_tensor
    from compressor.decore.projection import TargetError

    wanted_ms = limits.limits["latency_ms"]
    tried: list[Met] = []
    keep = choose(limits)
    for number in range(1 + MOST_CORRECTIONS):
        measured_ms = tuple(measure(keep))
        costs = limits.costs.calibrated(as_tensor(keep), measured_ms)
        limits = Limits(costs, limits.limits)
        tried.append(Met(keep, measured_ms, limits, number + 1))
        say(
            f"latency before fine-tuning: {_listed(measured_ms)} ms measured, "
            f"{wanted_ms:.3g} ms wanted"
        )
        if 1 - TOLERANCE <= tried[-1].slowest_ms / wanted_ms <= 1:
            break
        try:
            following = choose(limits)
        except TargetError as error:
            say(f"latency: {error}")
            break
        if any((following == before.keep).all() for before in tried):
            break
        keep = following
    return _best(tried, wanted_ms)


def _best(tried: Sequence[Met], wanted_ms: float) -> Met:
    enough = [met for met in tried if met.slowest_ms <= wanted_ms * (1 + 1e-9)]
    if enough:
        return max(enough, key=lambda met: met.slowest_ms)
    return min(tried, key=lambda met: met.slowest_ms)


def _listed(milliseconds: Sequence[float]) -> str:
    return ", ".join(f"{ms:.3g}" for ms in milliseconds)
