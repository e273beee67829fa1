"""Finished trials hold only as long as what they were made from and judged by is the same."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from pathlib import Path

from boards import load_board
from compress_export.errors import UsageError
from compress_export.job import with_limits
from compress_export.provenance import board_sha256, file_sha256
from compress_export.rebench import read_report
from compress_export.sweep.plan import Trial


def refuse_changed(trials: Iterable[Trial], out: Path) -> None:
    """Raise UsageError where a finished trial's board or weights are no longer those of its report.

    A job file only names them, and its text stays when a file that it names changes. What a report
    doesn't say and weights that are gone can't be compared; new trials will ask for those.
    """
    digest = cache(file_sha256)  # most trials share their weights, which may be large
    for trial in trials:
        if not (out / trial.name / "report.json").is_file():
            continue
        options, inputs = trial.options, read_report(out / trial.name).get("inputs", {})
        board, weights = load_board(options.board), options.weights
        now: dict[str, str | None] = {"board_sha256": board_sha256(with_limits(options, board))}
        if weights is not None and weights.exists():
            now["weights_sha256"] = digest(weights)
        names = {"board_sha256": f"board {options.board}", "weights_sha256": f"weights {weights}"}
        changed = [names[key] for key in now if inputs.get(key) not in (None, now[key])]
        if changed:
            raise UsageError(
                f"--out {out}: since {trial.name} was finished, {' and '.join(changed)} changed; "
                "move that folder away or choose another --out"
            )
