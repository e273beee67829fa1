"""A sweep file and the jobs that it stands for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import yaml

from compress_export.errors import UsageError
from compress_export.job_file import known_options, read_mapping, resolve_options, unknown_key
from compress_export.options import JobOptions

_LISTS = {
    "boards": (str, "names or paths, as in [jetson, boards/mine.yaml]"),
    "targets": (dict, "options, as in [target-macs: 0.5, target-macs: 0.25]"),
    "seeds": (int, "whole numbers, as in [0, 1]"),
}
_AMOUNTS = {"cpus": 1.0, "gpus": 0.0}
_OURS = ("board", "seed", "out", "force", "resume", "dry_run")
"""Options that the sweep itself decides."""


@dataclass(frozen=True)
class Trial:
    """One job of a sweep.

    Attributes:
        name: of its folder, from its board, target and seed.
        options: checked.
        job: the same as the text of a job file, which `--config` takes.
    """

    name: str
    options: JobOptions
    job: str


@dataclass(frozen=True)
class Sweep:
    """All jobs of a file, and what of a machine each of them takes.

    Attributes:
        trials: every target on every board with every seed.
        cpus: of a trial.
        gpus: of a trial; below 1 several trials share one.
    """

    trials: tuple[Trial, ...]
    cpus: float
    gpus: float


def read_sweep(path: Path, out: Path) -> Sweep:
    """Return the jobs of a sweep file; their folders lie in `out`.

    Raises:
        UsageError: the file can't be read, holds anything unknown, or a job's options are wrong.
    """
    origin = f"sweep {path}"
    content = {"seeds": [0], **read_mapping(path, "sweep", "'boards:', 'targets:', 'seeds:'")}
    known = {*_LISTS, *_AMOUNTS, "options"}
    problems = [unknown_key(str(key), known) for key in content if key not in known]
    problems += [f"{key}: must be a list of {_LISTS[key][1]}" for key in _wrong_lists(content)]
    amounts = {key: content.get(key, default) for key, default in _AMOUNTS.items()}
    problems += [
        f"{key} {value}: must be a number of at least 0"
        for key, value in amounts.items()
        if type(value) not in (int, float) or not 0 <= value < 1e6
    ]
    common = content.get("options") or {}
    if not isinstance(common, dict):
        problems.append("options: must be 'name: value' lines")
    if problems:
        raise UsageError(f"{origin}: {'; '.join(problems)}")
    trials = []
    for board, target, seed in product(*(content[key] for key in _LISTS)):
        given = {**_options(common, origin), **_options(target, origin)}
        name = _name(board, target, seed)
        given |= {"board": board, "seed": seed, "out": str(out / name)}
        trials.append(Trial(name, resolve_options(given), yaml.safe_dump(given)))
    names = [trial.name for trial in trials]
    if twice := [name for name in names if names.count(name) > 1]:
        raise UsageError(f"{origin}: two trials would be {twice[0]}; list each of them once")
    return Sweep(tuple(trials), **amounts)


def _wrong_lists(content: Mapping[object, Any]) -> list[str]:
    def right(found: Any, kind: type) -> bool:
        return isinstance(found, list) and bool(found) and all(type(e) is kind for e in found)

    return [key for key, (kind, _) in _LISTS.items() if not right(content.get(key), kind)]


def _options(given: Mapping[object, Any], origin: str) -> dict[str, Any]:
    found = known_options(given, origin)
    if ours := [name for name in _OURS if name in found]:
        raise UsageError(
            f"{origin}: {ours[0]!r} is for the sweep to decide: boards and seeds have lists of "
            "their own, and --out names the folder"
        )
    return found


def _name(board: str, target: Mapping[object, Any], seed: int) -> str:
    words = [f"{key}-{value}".removeprefix("target-") for key, value in target.items()]
    return re.sub(r"[^\w.-]+", "_", "-".join([Path(board).stem, *words, f"seed-{seed}"]))
