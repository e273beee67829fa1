"""Several devices at once; one that fails doesn't stop the others."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from time import monotonic
from typing import Any

from rich.console import Console

from compress_export.deploy.destination import Destination
from compress_export.deploy.device import Ssh, end_all
from compress_export.deploy.errors import DeviceError
from compress_export.deploy.payload import Payload
from compress_export.deploy.progress import DeviceLines
from compress_export.deploy.steps import (
    BenchRequest,
    Deployed,
    bench,
    deploy,
    roll_back,
    unmeasured,
)
from compress_export.exit_codes import ExitCode, verdict_code

_AT_ONCE = 8


@dataclass(frozen=True)
class Plan:
    """What is to be done on every device.

    Attributes:
        payload: what to send; None to go back to the previous version.
        bench: how to measure then; None to leave it.
    """

    ssh: Ssh
    payload: Payload | None
    bench: BenchRequest | None = None
    require_measured: bool = False


@dataclass(frozen=True)
class Outcome:
    """How it went on one device.

    Attributes:
        deployed: None where it failed before the switch.
        measured: the entry for `device_measurements`; None where nothing was measured.
        notes: what the user should know, one line each; the error is the last one.
    """

    destination: Destination
    code: ExitCode
    seconds: float = 0.0
    deployed: Deployed | None = None
    measured: dict[str, Any] | None = None
    notes: tuple[str, ...] = ()


def run_all(plan: Plan, destinations: Sequence[Destination], console: Console) -> list[Outcome]:
    """Do it on all devices; outcomes in their order."""
    total_bytes = 0 if plan.payload is None else plan.payload.size_bytes
    with (
        ThreadPoolExecutor(_AT_ONCE) as threads,
        DeviceLines(console, destinations, total_bytes) as lines,
    ):
        try:
            return list(threads.map(lambda one: _run(plan, one, lines), destinations))
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            end_all()
            raise


def _run(plan: Plan, destination: Destination, lines: DeviceLines) -> Outcome:
    started = monotonic()
    outcome = Outcome(destination, ExitCode.TOOL_FAILED)
    try:
        outcome = replace(outcome, deployed=_place(plan, destination, lines))
        outcome = replace(outcome, code=ExitCode.PASSED, notes=_notes(outcome.deployed))
        if plan.bench is not None:
            outcome = _with_bench(outcome, plan, plan.bench, lines)
        lines.say(destination, "done")
    except DeviceError as error:
        lines.say(destination, "failed")
        outcome = replace(outcome, code=error.code, notes=(*outcome.notes, str(error)))
    return replace(outcome, seconds=round(monotonic() - started, 3))


def _place(plan: Plan, destination: Destination, lines: DeviceLines) -> Deployed:
    if plan.payload is None:
        lines.say(destination, "going back")
        return roll_back(plan.ssh, destination)
    lines.say(destination, "sending")
    return deploy(plan.ssh, destination, plan.payload, lambda n: lines.advance(destination, n))


def _notes(deployed: Deployed | None) -> tuple[str, ...]:
    return (deployed.note,) if deployed and deployed.note else ()


def _with_bench(outcome: Outcome, plan: Plan, request: BenchRequest, lines: DeviceLines) -> Outcome:
    """Measure. A device without a runtime for any file gives code 4: that is no pass."""
    lines.say(outcome.destination, "measuring")
    measured = bench(plan.ssh, outcome.destination, request)
    missing = unmeasured(measured)
    nothing = len(missing) == len(measured["measurements"])
    statuses = [check["status"] for check in measured["checks"]]
    code = verdict_code(statuses, require_measured=plan.require_measured or nothing)
    if nothing and code is ExitCode.PASSED:
        code = ExitCode.NOT_MEASURED
    return replace(outcome, measured=measured, code=code, notes=(*outcome.notes, *missing))
