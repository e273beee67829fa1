"""A disk that is full, a limit on memory, a loss that is no number: what is said, what is left."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
_MEMORY_MIB = (0, 32, 64, 128, 192, 256, 384, 512)
_BROKEN_CALLS = ("5", "30", "80", "100", "130", "170", "200", "230")


def full_disk(job: str, work: Path) -> Iterator[Row]:
    """Run a job on disks that are too small; make them larger and resume."""
    expected = reference(job, work)
    for size_kib in _DISK_KIB[job]:
        with _disk(work / f"disk {job}", size_kib) as disk:
            out = disk / "out"
            ended = victim.run(words(job, out), work / "run disk")
            row = _row("full disk", job, f"{size_kib} KiB", ended)
            half = sorted(path.name for path in disk.rglob("*.part"))
            _mount("-o", f"remount,size={64 * MIB}", str(disk))
            yield row | {"half_written": half} | _went_on(job, out, work, expected.out)


def little_memory(job: str, work: Path) -> Iterator[Row]:
    """Run a job that may take only so much more address space; resume it without a limit."""
    expected = reference(job, work)
    for more_mib in _MEMORY_MIB:
        folder = work / f"memory {job}"
        shutil.rmtree(folder, ignore_errors=True)
        out = folder / "out"
        ended = victim.run(words(job, out), folder, before=lambda n=more_mib: _limit_memory(n))
        row = _row("memory", job, f"{more_mib} MiB more", ended)
        half = sorted(path.name for path in folder.rglob("*.part"))
        yield row | {"half_written": half} | _went_on(job, out, work, expected.out)


def broken_loss(work: Path) -> Iterator[Row]:
    """Let the loss of one step be NaN, twice over; then let it stay NaN, and resume without."""
    loss = ("--loss", LOSS)
    undisturbed = work / "loss undisturbed"
    shutil.rmtree(undisturbed, ignore_errors=True)
    victim.run(words("training", undisturbed / "out", *loss), undisturbed)
    for call in _BROKEN_CALLS:
        outs = []
        for turn in (1, 2):
            folder = work / f"loss {turn}"
            shutil.rmtree(folder, ignore_errors=True)
            outs.append(folder / "out")
            ended = victim.run(
                words("training", outs[-1], *loss), folder, before=lambda c=call: _break_loss(c)
            )
        said = [line for line in ended.said.splitlines() if "of the learning rate" in line]
        found = [f"exit code {ended.code}"] if ended.code else compared(*outs)
        row = _row("loss once NaN", "training", f"step {call}", ended)
        yield row | {"said": said[-1] if said else "", "differences": found[:5]}
    for call in _BROKEN_CALLS[1::2]:
        folder = work / "loss stays"
        shutil.rmtree(folder, ignore_errors=True)
        out = folder / "out"
        command = words("training", out, *loss)
        ended = victim.run(command, folder, before=lambda c=call: _break_loss(f"{c}-"))
        row = _row("loss stays NaN", "training", f"from step {call}", ended)
        yield row | _went_on("training", out, work, undisturbed / "out", *loss)


def _row(case: str, job: str, point: str, ended: victim.Ended) -> Row:
    said = lines(ended)
    return {
        "case": case,
        "job": job,
        "point": point,
        "stage": ended.stage,
        "code": ended.code,
        "lines": len(said),
        "said": said[-1] if said else "",
    }


def _went_on(job: str, out: Path, work: Path, expected: Path, *more: str) -> Row:
    """Resume, or start again where there is nothing to resume; compare."""
    if out.is_dir() and not is_unfinished(out):
        return {"resumed": "not needed", "differences": compared(expected, out)[:5]}
    way = ["--resume"] if is_unfinished(out) else []
    ended = victim.run(words(job, out, *more, *way), work / "run on")
    found = compared(expected, out) if ended.code == 0 else [f"{ended.code}: {ended.complained}"]
    return {"resumed": "resumed" if way else "started anew", "differences": found[:5]}


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


CASES: dict[str, Callable[[Path], Iterator[Row]]] = {
    "disk-training": lambda work: full_disk("training", work),
    "disk-files": lambda work: full_disk("files", work),
    "memory-training": lambda work: little_memory("training", work),
    "memory-files": lambda work: little_memory("files", work),
    "loss": broken_loss,
}
