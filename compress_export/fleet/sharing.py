"""Work that the jobs of a fleet have in common: the baseline, and searches with equal targets.

Shared is what a resumed run would find: the checkpoint of a finished training and the folders of
finished rungs. A job that takes them ends as it would have ended alone.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress_export.targets import (
    BYTES_PER_VALUE,
    DEFAULT_MAX_DROP,
    Target,
    channel_step,
)
from compress_export.whole_files import write_whole
from compressor.whole_files import whole_file

if TYPE_CHECKING:
    from compress_export.job import Job

_BASELINE = ("baseline.pt", "baseline.csv")
_NOTE = "search.json"


@dataclass(frozen=True)
class Sharing:
    """What a job may take from others.

    Attributes:
        earlier: DIR.run of the finished jobs of the same fleet; they have the same options, the
            board aside.
    """

    earlier: tuple[Path, ...] = ()

    def take_baseline(self, job: Job) -> None:
        """Put the checkpoint of the trained baseline into the job's DIR.run."""
        found = next((run for run in self.earlier if (run / _BASELINE[0]).is_file()), None)
        if found is None or (job.folder.run / _BASELINE[0]).exists():
            return
        for name in reversed(_BASELINE):  # the checkpoint last: it says that all is there
            if (found / name).is_file():
                with whole_file(job.folder.run / name) as unfinished:
                    shutil.copyfile(found / name, unfinished)
        job.log.say(f"baseline: the one that was trained for {_owner(found)}")

    def take_search(self, job: Job, target: Target) -> None:
        """Put the rungs of a search with the same target into the job's DIR.run.

        Only where no exported file has a say in it: the target is a share of the MACs.
        """
        key = search_key(job, target)
        if key is None:
            return
        note = job.folder.run / _NOTE
        found = next((run for run in self.earlier if _read(run / _NOTE) == key), None)
        if found is not None and not note.exists():
            for rung in sorted(found.glob("rung-*")):
                if (rung / "figures.json").is_file():
                    _copy_rung(rung, job.folder.run / rung.name)
            job.log.say(f"search: the one that was run for {_owner(found)}")
        write_whole(note, json.dumps(key))


def search_key(job: Job, target: Target) -> dict[str, Any] | None:
    """Return what decides a search beside the options; None where files decide too."""
    if set(target.limits) - {"macs"}:
        return None
    drop = job.board.budgets.limits().get("accuracy_drop_points", DEFAULT_MAX_DROP)
    return {
        "limits": dict(target.limits),
        "smallest": target.smallest,
        "channel_step": channel_step(job.board, job.exports.precision),
        "bytes_per_value": list(BYTES_PER_VALUE[job.exports.precision]),
        "accuracy_drop_points": drop if target.smallest else None,
    }


def _owner(run: Path) -> str:
    return run.name.removesuffix(".run")


def _read(note: Path) -> Any:
    return json.loads(note.read_text(encoding="utf-8")) if note.is_file() else None


def _copy_rung(source: Path, target: Path) -> None:
    """Without checkpoints, which a finished rung no longer needs."""
    part = target.with_name(target.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, part, ignore=shutil.ignore_patterns("*.pt", "*.part"))
    part.rename(target)
