"""What of a board decides the files that are made for it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from compress_export.options import JobOptions
from compress_export.provenance import board_sha256
from compress_export.targets import LATENCY

if TYPE_CHECKING:
    from boards import Board

_NEVER_STEERS = "peak_rss_mib"


@dataclass(frozen=True)
class Member:
    """One board of a fleet.

    Attributes:
        options: of its job alone.
        board: its descriptor, the user's limits and rules in place of its own.
    """

    options: JobOptions
    board: Board


@dataclass(frozen=True)
class Need:
    """Boards that one compression serves.

    Attributes:
        decides: what they have in common, as plain JSON.
        members: the first one's job is run, the others take its files.
    """

    decides: dict[str, Any]
    members: tuple[Member, ...]

    @property
    def name(self) -> str:
        """The first board's id."""
        return self.members[0].board.id

    @property
    def boards(self) -> str:
        """Their ids, for people."""
        return ", ".join(member.board.id for member in self.members)


def need_of(
    board: Board, formats: Sequence[str], precisions: Sequence[str], *, by_measurement: bool = False
) -> dict[str, Any]:
    """Return all that the search, the export and the choice of what is shipped read of a board.

    Boards for which this is equal get the same files. Left out are its names, clock and cores,
    storage, deployment, and the budgets that no step goes by: process memory, which is only
    judged, and latency where this machine can't measure it for the board. A board that is this
    machine gets files of its own, since they alone can be measured on their board.

    Args:
        board: the user's limits and rules already in place of its own.
        formats, precisions: of the files to make.
        by_measurement: with `--precision auto` every budget has a say in what is shipped.
    """
    from compress_export.latency_target import why_not_searchable
    from exporters.bundle import limits_of
    from runtime_bench import BoardRef, is_board

    reference = BoardRef(board.id, board.kind, board.cpu.arch, board.cpu.isa, board.cpu.cores)
    idle = {_NEVER_STEERS} | ({LATENCY} if why_not_searchable(board, formats) else set())
    if by_measurement:
        idle = set()
    return {
        "formats": list(formats),
        "precisions": list(precisions),
        "quantization": board.quantization.model_dump(mode="json"),
        "limits": {name: v for name, v in limits_of(board).items() if name not in idle},
        "channel_steps": dict(board.channel_steps),
        "board_precisions": list(board.precisions),
        "kind": board.kind,
        "arch": board.cpu.arch,
        "isa": sorted(board.cpu.isa),
        "runtimes": sorted(runtime.name for runtime in board.runtimes),
        "opset": board.onnx_opset_max,
        "ir": board.onnx_ir_max,
        "this_machine": is_board(reference),
    }


def distinct_needs(jobs: Sequence[JobOptions]) -> tuple[Need, ...]:
    """Check all boards, then group those that need the same files, in the order given.

    Raises:
        UsageError, BoardError: a mistake in any of them, or two of one id.
    """
    from compress_export.errors import UsageError
    from compress_export.exporting import chosen_precisions
    from compress_export.job import checked_board

    groups: dict[str, tuple[dict[str, Any], list[Member]]] = {}
    ids: set[str] = set()
    for options in jobs:
        board, formats = checked_board(options)
        if board.id in ids:
            raise UsageError(f"--board {options.board}: board {board.id} is named twice")
        ids.add(board.id)
        precisions = chosen_precisions(options, board, formats)
        decides = need_of(board, formats, precisions, by_measurement=options.chooses_precision)
        key = json.dumps(decides, sort_keys=True)
        groups.setdefault(key, (decides, []))[1].append(Member(options, board))
    return tuple(Need(decides, tuple(members)) for decides, members in groups.values())


def digest(board: Board) -> str:
    """Short text that changes with anything in a descriptor, for --resume."""
    return board_sha256(board)[:12]
