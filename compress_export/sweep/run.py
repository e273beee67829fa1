"""A sweep on Ray: every trial is a task that runs an ordinary job, or goes on with it.

Ray places the tasks and starts those anew whose worker died; what is done, the folders tell.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from rich.console import Console

from boards import load_board
from compress_export.errors import UsageError
from compress_export.exit_codes import ExitCode, verdict_code, worst
from compress_export.outputs import is_unfinished
from compress_export.rebench import read_report
from compress_export.shown import print_line
from compress_export.sweep.plan import Sweep, Trial
from compress_export.whole_files import write_whole

_RETRIES = 3
"""Workers that a trial may lose."""


def run_sweep(sweep: Sweep, out: Path, address: str | None, console: Console) -> ExitCode:
    """Run all trials that are not done; return the worst of their codes, 3 for one that failed.

    Args:
        out: gets the folder, job file and log of every trial, and the page that compares them.
        address: of a Ray cluster whose machines see `out` at the same path; None starts Ray here.

    Raises:
        UsageError: Ray isn't installed, doesn't answer, or `out` belongs to another sweep or
            holds a trial whose board or weights have changed.
        BoardError, InputError: a board, or anything that the first trial names, is not there.
    """
    ray = _installed()
    from compress_export.job import checked_task
    from compress_export.sweep.finished import refuse_changed

    for trial in sweep.trials:
        load_board(trial.options.board)
    checked_task(sweep.trials[0].options, lambda line: None)
    codes: dict[str, ExitCode] = {}
    with _connected(ray, address):
        for trial in sweep.trials:
            _claim(trial, out)
        refuse_changed(sweep.trials, out)
        for name, code in _outcomes(ray, sweep, out):
            codes[name] = code
            line = f"{len(codes)} of {len(sweep.trials)}: {name}: {_ending(out / name, code)}"
            print_line(console, line)
            so_far = {t.name: codes[t.name] for t in sweep.trials if t.name in codes}
            _compare(out, so_far, console)
    return worst(codes.values())


def run_trial(trial: Trial, out: Path, start: Path) -> ExitCode:
    """Run one job, unless it is done; return its exit code, 3 for all that end without a verdict.

    Args:
        out: folder of the sweep.
        start: what relative paths of the sweep start from.
    """
    from compress_export.cli import main

    os.chdir(start)
    folder = out / trial.name
    if not (folder / "report.json").is_file():
        arguments = ["--config", str(_job_file(trial, out))]
        arguments += ["--resume"] if is_unfinished(folder) else []
        log = (out / f"{trial.name}.log").open("a", encoding="utf-8")
        with log, redirect_stdout(log), redirect_stderr(log):
            main(arguments)
    if not (folder / "report.json").is_file():
        return ExitCode.TOOL_FAILED
    statuses = [check["status"] for check in read_report(folder)["checks"]]
    return verdict_code(statuses, require_measured=trial.options.require_measured)


def _job_file(trial: Trial, out: Path) -> Path:
    return out / f"{trial.name}.yaml"


def _claim(trial: Trial, out: Path) -> None:
    """Write a trial's job file, unless one of another job is there."""
    path = _job_file(trial, out)
    if path.exists() and path.read_text(encoding="utf-8") != trial.job:
        raise UsageError(f"--out {out}: {path.name} is of a sweep with other options")
    write_whole(path, trial.job)


def _outcomes(ray: Any, sweep: Sweep, out: Path) -> Iterator[tuple[str, ExitCode]]:
    """Yield name and code of every trial as it ends."""
    # One task a process, so that none finds what another has left in memory.
    task = ray.remote(num_cpus=sweep.cpus, num_gpus=sweep.gpus, max_retries=_RETRIES, max_calls=1)(
        run_trial
    )
    running = {task.remote(trial, out, Path.cwd()): trial.name for trial in sweep.trials}
    while running:
        (done,), _ = ray.wait(list(running))
        try:
            code = ExitCode(ray.get(done))
        except ray.exceptions.RayError:  # it has lost more workers than it may
            code = ExitCode.TOOL_FAILED
        yield running.pop(done), code


def _ending(folder: Path, code: ExitCode) -> str:
    """One line about a trial that is over."""
    if code is not ExitCode.TOOL_FAILED:
        return str(read_report(folder)["verdict"])
    log = folder.with_name(f"{folder.name}.log")
    lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    return f"failed: {lines[-1] if lines else 'its worker died'}"


def _compare(out: Path, codes: Mapping[str, ExitCode], console: Console) -> None:
    """Write the list of what the trials so far ended with, and the page that compares them.

    Where there can be no page, say why: trials must not be lost over a picture of them.
    """
    from compress_export.html_report import PAGE, write_comparison

    done = [out / name for name, code in codes.items() if code is not ExitCode.TOOL_FAILED]
    write_whole(
        out / "sweep.json", json.dumps({n: int(code) for n, code in codes.items()}, indent=2)
    )
    if done:
        try:
            write_comparison(done, out / PAGE)
        except Exception as error:
            print_line(console, f"{PAGE} was not written, {type(error).__name__}: {error}")


def _installed() -> Any:
    # It would send usage statistics home otherwise.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError:
        raise UsageError("a sweep needs Ray: pip install 'compress-export[sweep]'") from None
    return ray


@contextmanager
def _connected(ray: Any, address: str | None) -> Iterator[None]:
    """Be connected to a cluster, or to one that is started on this machine."""
    here = {"include_dashboard": False} if address is None else {"address": address}
    try:
        ray.init(log_to_driver=False, logging_level="ERROR", **here)
    except (ConnectionError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UsageError(f"--address {address}: no Ray cluster answers ({reason})") from None
    try:
        yield
    finally:
        ray.shutdown()
