"""Stop jobs at random moments, resume them, and compare with the undisturbed ones."""

from __future__ import annotations

import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.crash import victim
from benchmarks.crash.jobs import Reference, compared, lines, reference, words
from benchmarks.crash.victim import Moment
from compress_export.outputs import is_unfinished

SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
CODES = {signal.SIGKILL: -signal.SIGKILL, signal.SIGTERM: 143, signal.SIGINT: 130}
MOST_KILLS = 8

Row = dict[str, Any]


def stopped_run(
    job: str, work: Path, number: int, say: Callable[[str], None], most: int = MOST_KILLS
) -> list[Row]:
    """Stop one run of a job several times; return a row for every signal that reached it.

    Args:
        number: of the run, which decides all its moments.
        most: signals.
    """
    expected = reference(job, work)
    rng = random.Random(f"{job} {number}")
    folder = work / f"run {job}"
    shutil.rmtree(folder, ignore_errors=True)
    out = folder / "out"
    started = time.monotonic()
    rows: list[Row] = []
    reached = ""
    for _ in range(rng.randint(2, most)):
        moment = _drawn(rng, expected, reached)
        ended = victim.run(words(job, out, *_resume(out)), folder, moment)
        if not ended.signalled:
            break
        rows.append(_row(job, number, moment, ended, work))
        reached = ended.stage
        if _complete(out):  # too late to be stopped
            break
    else:
        ended = victim.run(words(job, out, *_resume(out)), folder)
    if _complete(out):
        found = compared(expected.out, out)
    else:
        found = [f"exit code {ended.code}: {ended.complained}"]
    left = sorted(path.name for path in folder.rglob("*.part"))
    seconds = round(time.monotonic() - started, 1)
    for row in rows:
        row |= {"differences": found[:5], "half_written": left, "seconds": seconds}
    stages = ", ".join(f"{row['stage']} ({row['signal']})" for row in rows)
    say(f"{job} {number}: {stages}: {found or 'identical'} in {seconds:.0f} s")
    return rows


def _complete(out: Path) -> bool:
    return out.is_dir() and not is_unfinished(out)


def _resume(out: Path) -> list[str]:
    return ["--resume"] if is_unfinished(out) else []


def _drawn(rng: random.Random, expected: Reference, reached: str) -> Moment:
    """Draw a signal, and a moment: half by time within a random stage, half by files.

    Args:
        reached: stage that the run was in when it was stopped last; those before it, but for the
            first two, are not done again.
    """
    number, stages = rng.choice(SIGNALS), [name for name in expected.stages if name]
    done = stages.index(reached) if reached in stages else 0
    left = [*stages[: min(done, 2)], *stages[done:]]
    if rng.random() < 0.5:
        operations = expected.operations * len(left) // len(stages)
        return Moment(number, operation=rng.randint(1, operations))
    stage = rng.choice(left)
    return Moment(number, stage=stage, after_s=rng.uniform(0, expected.stages[stage]))


def _row(job: str, number: int, moment: Moment, ended: victim.Ended, work: Path) -> Row:
    said = lines(ended, work)
    return {
        "job": job,
        "run": number,
        "signal": moment.number.name,
        "at": "time" if moment.operation is None else "file operation",
        "stage": ended.stage,
        "code": ended.code,
        "code_as_documented": ended.code in (CODES[moment.number], 0),
        "lines": len(said),
        "said": said[-1] if said else "",
    }
