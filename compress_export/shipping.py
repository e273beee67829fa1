"""What the bundle holds in the end: no INT8 file that is slower than float and no smaller."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from compress_export.job import Job
    from exporters import Exported
    from runtime_bench import Measurement


def ship_what_gains(job: Job, measured: tuple[Measurement, ...]) -> tuple[Measurement, ...]:
    """Let bundle and reference exchange an INT8 file without gain and its float file.

    Only latencies that count for the board decide (`runtime_bench.without_gain`). Where there are
    none, the INT8 file stays, and the report warns if it was slower here.

    Returns:
        The measurements, with the folders that the files lie in now.
    """
    from exporters.bundle import read_manifest_files, replace_files
    from runtime_bench import without_gain

    bundle, reference = job.folder.staged / "bundle", job.folder.staged / "reference"
    losers = {
        item.path: float_file.path
        for item, float_file in without_gain(measured)
        if (Path(item.folder), Path(float_file.folder)) == (bundle, reference)
    }
    if not losers:
        return measured
    shipped, compared = read_manifest_files(bundle), read_manifest_files(reference)
    leaving = [file for file in shipped if file.path in losers]
    coming = [file for file in compared if file.path in losers.values()]
    _move(leaving, bundle, reference)
    _move(coming, reference, bundle)
    job.reference = [*_without(compared, coming), *leaving]
    replace_files(bundle, [*_without(shipped, leaving), *coming], board=job.board)
    replace_files(reference, job.reference, board=job.board)
    job.warnings += [
        f"{name} is slower than {float_name} and no smaller: the bundle holds {float_name} instead"
        for name, float_name in losers.items()
    ]
    homes = {file.sha256: str(bundle) for file in coming}
    homes |= {file.sha256: str(reference) for file in leaving}
    return tuple(replace(item, folder=homes.get(item.sha256, item.folder)) for item in measured)


def _without(files: Sequence[Exported], others: Sequence[Exported]) -> list[Exported]:
    return [file for file in files if file not in others]


def _move(files: Sequence[Exported], source: Path, target: Path) -> None:
    for name in (name for file in files for name in file.paths):
        (source / name).rename(target / name)
