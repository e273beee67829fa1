"""A disk that is full, a limit on memory, a loss that is no number: what is said, what is left."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.crash import victim
from benchmarks.crash.jobs import compared, lines, reference, words
from benchmarks.crash.network import LOSS, NAN_CALLS
from compress_export.outputs import is_unfinished

Row = dict[str, Any]
KIB = 2**10
MIB = 2**20

_DISK_KIB = {
    "training": (64, 256, 448, 640, 832, 1024),
    "files": (64, 128, 192, 256, 384, 512),
}
_MORE_MIB = (0, 32, 64, 128, 192, 256, 384, 512)
_NAN_STEPS = (3, 8, 14, 20, 26, 30, 36, 42)
_OWN_LOSS = ("--loss", LOSS)


def full_disk(job: str, size_kib: int, work: Path) -> Row:
    """Run a job on a disk that is too small; make it larger and resume."""
    expected = reference(job, work)
    with _disk(work / f"disk {job}", size_kib) as disk:
        out = disk / "out"
        ended = victim.run(words(job, out), work / "run disk")
        row = _row("full disk", job, f"{size_kib} KiB", ended, work) | _half_written(disk)
        _mount("-o", f"remount,size={64 * MIB}", str(disk))
        return row | _went_on(job, out, work, expected.out)


def little_memory(job: str, more_mib: int, work: Path) -> Row:
    """Run a job that may take only so much more address space; resume it without a limit."""
    expected = reference(job, work)
    out = _fresh(work / f"memory {job}")
    ended = victim.run(words(job, out), out.parent, before=lambda: _limit_memory(more_mib))
    row = _row("memory", job, f"{more_mib} MiB more", ended, work) | _half_written(out.parent)
    return row | _went_on(job, out, work, expected.out)


def one_nan(call: int, work: Path) -> Row:
    """Let the loss of one step be NaN, twice over; resume where that ends the job."""
    outs = [_fresh(work / f"loss {turn}") for turn in (1, 2)]
    for out in outs:
        command = words("training", out, *_OWN_LOSS)
        ended = victim.run(command, out.parent, before=lambda: _break_loss(f"{call}"))
    row = _row("loss once NaN", "training", f"step {call}", ended, work)
    if ended.code:
        return row | _went_on("training", outs[-1], work, _undisturbed(work), *_OWN_LOSS)
    said = [line for line in ended.said.splitlines() if "of the learning rate" in line]
    return row | {"said": said[-1] if said else "", "differences": compared(*outs)[:5]}


def only_nan(call: int, work: Path) -> Row:
    """Let the loss be NaN from one step on; resume without that."""
    out = _fresh(work / "loss stays")
    command = words("training", out, *_OWN_LOSS)
    ended = victim.run(command, out.parent, before=lambda: _break_loss(f"{call}-"))
    row = _row("loss stays NaN", "training", f"from step {call}", ended, work)
    return row | _went_on("training", out, work, _undisturbed(work), *_OWN_LOSS)


def _undisturbed(work: Path) -> Path:
    """Return the result of the same job with a loss that stays finite."""
    out = work / "loss undisturbed" / "out"
    if not out.is_dir():
        victim.run(words("training", out, *_OWN_LOSS), _fresh(out.parent).parent)
    return out


def cases() -> dict[str, Callable[[Path], Row]]:
    """Return everything that is to be tried, by name."""
    found: dict[str, Callable[[Path], Row]] = {}
    for job, sizes in _DISK_KIB.items():
        found |= {f"disk {job} {size}": partial(full_disk, job, size) for size in sizes}
    for job in _DISK_KIB:
        found |= {f"memory {job} {more}": partial(little_memory, job, more) for more in _MORE_MIB}
    found |= {f"loss {call}": partial(one_nan, call) for call in _NAN_STEPS}
    return found | {f"loss {call}-": partial(only_nan, call) for call in _NAN_STEPS[1::2]}


def _row(case: str, job: str, point: str, ended: victim.Ended, work: Path) -> Row:
    said = lines(ended, work)
    return {
        "case": case,
        "job": job,
        "point": point,
        "stage": ended.stage,
        "code": ended.code,
        "lines": len(said),
        "said": said[-1] if said else "",
        "hung": ended.hung,
    }


def _went_on(job: str, out: Path, work: Path, expected: Path, *more: str) -> Row:
    """Resume, or start again where there is nothing to resume; compare."""
    if out.is_dir() and not is_unfinished(out):
        return {"resumed": "not needed", "differences": compared(expected, out)[:5]}
    way = ["--resume"] if is_unfinished(out) else []
    ended = victim.run(words(job, out, *more, *way), work / "run on")
    found = compared(expected, out) if ended.code == 0 else [f"{ended.code}: {ended.complained}"]
    return {"resumed": "resumed" if way else "started anew", "differences": found[:5]}


def _fresh(folder: Path) -> Path:
    """Return DIR in an empty folder."""
    shutil.rmtree(folder, ignore_errors=True)
    return folder / "out"


def _half_written(folder: Path) -> Row:
    return {"half_written": sorted(path.name for path in folder.rglob("*.part"))}


def _limit_memory(more_mib: int) -> None:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    limit = pages * os.sysconf("SC_PAGE_SIZE") + more_mib * MIB
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _break_loss(calls: str) -> None:
    os.environ[NAN_CALLS] = calls


@contextmanager
def _disk(folder: Path, size_kib: int) -> Iterator[Path]:
    """A disk in memory, which only root may mount."""
    folder.mkdir(parents=True, exist_ok=True)
    _mount("-t", "tmpfs", "-o", f"size={size_kib * KIB}", "tmpfs", str(folder))
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)
