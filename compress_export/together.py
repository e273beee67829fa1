"""One job in several processes: torchrun started this program once for each of them.

All of them train; the first one alone claims DIR, exports, measures and writes. The others keep
what the stages write in a folder of their own, which goes with them.
"""

from __future__ import annotations

import json
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from boards import load_board
from compress_export.exit_codes import ExitCode, verdict_code
from compress_export.launch import is_first, was_restarted
from compress_export.outputs import default_out, is_unfinished, run_folder
from compress_export.rebench import read_report
from compress_export.run_action import note_job

if TYPE_CHECKING:
    from torch import Tensor

    from compress_export.options import JobOptions

_DECIDED = ("figures.json", "channels.json", "network/*")
"""What an interrupted run had finished, in the folders of its rungs. Checkpoints are handed out
where they are read."""


def compress_together(options: JobOptions, console: Console) -> int:
    """Do a job as one of its processes; return the exit code, which is 0 for all but the first.

    Processes that torchrun started again go on by themselves.

    Raises:
        PeerLostError: another process has ended; otherwise like `pipeline.compress`.
    """
    from compress_export.job import open_job
    from compress_export.pipeline import compress, run_stages, train
    from compressor import ranks

    if options.stages == ("bench",):  # nothing to train
        return int(compress(options, console).exit_code) if is_first() else ExitCode.PASSED
    with ExitStack() as stack:
        stack.enter_context(ranks.joined())
        over = ranks.from_first(lambda: _over(options))
        if over is not None:
            return over if is_first() else ExitCode.PASSED
        if is_first():
            options = _going_on(options)
        else:
            scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            changes = {"out": scratch / "out", "force": False, "resume": False}
            options = options.model_copy(update=changes)
        note_job(options)
        job = stack.enter_context(open_job(options, console))
        _hand_out(job.folder.run)
        if is_first():
            if ranks.count() > 1:
                job.log.say(f"{ranks.count()} processes train together")
            return int(run_stages(job).exit_code)
        train(job)
        return ExitCode.PASSED


def _over(options: JobOptions) -> int | None:
    """Return the code of this job if it was done when another of its processes died."""
    out = _out(options)
    run = run_folder(out)
    if not was_restarted() or not (run / "finished").is_file():
        return None
    if json.loads((run / "options.json").read_text(encoding="utf-8")) != options.identity():
        return None
    statuses = [check["status"] for check in read_report(out)["checks"]]
    return verdict_code(statuses, require_measured=options.require_measured)


def _going_on(options: JobOptions) -> JobOptions:
    """Resume what lies there unfinished: nobody adds --resume to a command that is repeated."""
    if (was_restarted() or not options.force) and is_unfinished(_out(options)):
        return options.model_copy(update={"resume": True})
    return options


def _out(options: JobOptions) -> Path:
    return options.out or default_out(load_board(options.board).id)


def _hand_out(run: Path) -> None:
    """Give the other processes what the first one's DIR.run says was decided."""
    import torch

    from compressor import ranks

    def found() -> dict[str, Tensor]:
        paths = [p for p in run.rglob("*") if any(p.match(name) for name in _DECIDED)]
        return {
            path.relative_to(run).as_posix(): torch.frombuffer(
                bytearray(path.read_bytes()), dtype=torch.uint8
            )
            for path in paths
        }

    for name, content in ranks.from_first(found).items():
        if not is_first():
            (run / name).parent.mkdir(parents=True, exist_ok=True)
            (run / name).write_bytes(content.numpy().tobytes())
