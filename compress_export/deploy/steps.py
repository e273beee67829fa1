"""What is done on one device: deploy, go back, measure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from compress_export.deploy.answer import Expected, read_answer
from compress_export.deploy.destination import Destination
from compress_export.deploy.device import Conversation, Ssh, last_line
from compress_export.deploy.errors import DeviceError
from compress_export.deploy.payload import Payload
from compress_export.exit_codes import ExitCode

_VERDICTS = (ExitCode.PASSED, ExitCode.BUDGET_MISSED, ExitCode.NOT_MEASURED)


@dataclass(frozen=True)
class Deployed:
    """What a device has now.

    Attributes:
        version: name of its folder.
        sent_bytes: 0 where the device had it already.
        note: what the user should know besides, or "".
    """

    version: str
    sent_bytes: int
    note: str = ""


@dataclass(frozen=True)
class BenchRequest:
    """How to measure on the device.

    Attributes:
        python: name or path there.
        expected: the bundle; the id of its board makes the figures say `measured_on: board`.
        arguments: of bench.pyz.
    """

    python: str
    expected: Expected
    arguments: tuple[str, ...] = ()


def deploy(
    ssh: Ssh, destination: Destination, payload: Payload, sent: Callable[[int], None]
) -> Deployed:
    """Send a bundle, let the device check it and switch to it.

    Args:
        sent: is told how many bytes went, chunk by chunk.

    Raises:
        DeviceError: it didn't work; the device has its old version.
    """
    name, note = payload.version_name(), ""
    with Conversation(ssh, destination, "deploy", name) as device:
        word, rest = device.answer()
        if word == "altered":
            note = f"the version there had been altered ({rest}) and was replaced"
            word, rest = device.answer()
        if word == "same":
            return Deployed(rest, 0, "the device has this version already")
        device.send(payload.tar_chunks(), sent)
        device.close_input()
        _, version = device.answer()
    return Deployed(version, payload.size_bytes, note)


def roll_back(ssh: Ssh, destination: Destination) -> Deployed:
    """Switch to the previous version; the present one becomes the previous.

    Raises:
        DeviceError: there is none, or its files were altered.
    """
    with Conversation(ssh, destination, "rollback") as device:
        _, version = device.answer()
    return Deployed(version, 0, "back to the previous version")


def bench(ssh: Ssh, destination: Destination, request: BenchRequest) -> dict[str, Any]:
    """Run bench.pyz of the version that the device has; return an entry of `device_measurements`.

    Raises:
        DeviceError: no Python there, files were altered, the bench failed, or what it wrote isn't
            about the bundle's files.
    """
    lines = (request.python, request.expected.bundle.board.id, *request.arguments)
    measured_at = datetime.now(UTC).isoformat(timespec="seconds")
    with Conversation(ssh, destination, "bench", *lines) as device:
        device.close_input()
        _, code = device.answer()
        figures, said = device.rest(), device.errors()
    last = last_line(said)
    if code not in {str(int(one)) for one in _VERDICTS}:
        raise DeviceError(f"the bench failed with code {code}: {last}")
    if not figures:  # no numpy, say
        measurable = int(code) != ExitCode.NOT_MEASURED
        outcome = ExitCode.TOOL_FAILED if measurable else ExitCode.NOT_MEASURED
        raise DeviceError(f"the bench measured nothing: {last}", outcome)
    try:
        measured = read_answer(figures, request.expected)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise DeviceError(f"the bench wrote no figures of this bundle: {last}") from None
    return {**measured, "device": destination.text, "measured_at": measured_at}


def unmeasured(entry: dict[str, Any]) -> list[str]:
    """What the device had no runtime for, one line for each file."""
    return [
        f"{file['name']}: {file['note'] or 'not measured'}"
        for file in entry["measurements"]
        if not file["runtime"]
    ]
