"""One line for each device: moving on a terminal, plain lines in the log of a CI job."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

from compress_export.deploy.destination import Destination
from compress_export.shown import print_line


class DeviceLines:
    """A context manager; its methods may be called from several threads."""

    def __init__(self, console: Console, destinations: Sequence[Destination], total: int) -> None:
        """Show the devices.

        Args:
            total: bytes that each is sent.
        """
        self._console = console
        self._bars = Progress(
            TextColumn("{task.fields[device]}"),
            BarColumn(bar_width=20),
            DownloadColumn(binary_units=True),
            TextColumn("{task.description}"),
            console=console,
            disable=not console.is_terminal,
        )
        self._tasks = {
            one: self._bars.add_task("waiting", total=total, device=escape(one.text))
            for one in destinations
        }

    def say(self, destination: Destination, stage: str) -> None:
        """Show what a device is at."""
        self._bars.update(self._tasks[destination], description=escape(stage))
        if self._bars.disable:
            print_line(self._console, f"{destination.text}: {stage}")

    def advance(self, destination: Destination, sent_bytes: int) -> None:
        """Add to the bytes that a device was sent."""
        self._bars.advance(self._tasks[destination], sent_bytes)

    def __enter__(self) -> DeviceLines:
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bars.stop()
