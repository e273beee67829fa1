"""What long work shows: a bar, a line per epoch, a CSV per stage, TensorBoard curves."""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

_BAR_VALUES = ("loss", "reward", "expected_load", "kept_share")
_WRITE_EVERY_STEPS = 10
_TIMINGS_FILE = "timings.json"


class RunLog:
    """Observer of training and search that also times the stages of a job.

    Args:
        folder: DIR.run; gets `STAGE.csv` and `tensorboard/`. None writes nothing. A stage may stand
            in a folder of its own, as "rung-2/search" does.
        console: where bars and lines go.

    Attributes:
        console: where bars and lines go.
        timings_seconds: wall time of every stage, by name.
    """

    def __init__(self, folder: Path | None, console: Console) -> None:
        self._folder = folder
        self.timings_seconds = self._earlier_timings()
        self._running: tuple[str, float] | None = None
        self.console = console
        self._progress = Progress(
            TextColumn("{task.description:<15}"),
            BarColumn(bar_width=24),
            TextColumn("{task.completed}/{task.total} {task.fields[values]}"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,  # a log gets the lines of the epochs alone
        )
        self._bars: dict[str, TaskID] = {}
        self._writer: Any = None

    def __enter__(self) -> RunLog:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()
        if self._writer is not None:
            self._writer.close()

    def say(self, text: str) -> None:
        """Print one line."""
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Add the wall time of a block to `timings_seconds[name]`."""
        self._running = (name, time.perf_counter())
        try:
            yield
        finally:
            self.timings_seconds = self._timings_so_far()
            self._running = None

    def _timings_so_far(self) -> dict[str, float]:
        if self._running is None:
            return dict(self.timings_seconds)
        name, start = self._running
        spent = self.timings_seconds.get(name, 0.0) + time.perf_counter() - start
        return {**self.timings_seconds, name: round(spent, 3)}

    def _earlier_timings(self) -> dict[str, float]:
        """Return what an interrupted run had spent up to its last whole epoch."""
        path = None if self._folder is None else self._folder / _TIMINGS_FILE
        if path is None or not path.exists():
            return {}
        return dict(json.loads(path.read_text(encoding="utf-8")))

    def within(self, folder: str) -> _Within:
        """Return an observer whose stages stand in a folder: "search" becomes "FOLDER/search"."""
        return _Within(self, folder)

    def step(self, stage: str, done: int, total: int, values: Mapping[str, float]) -> None:
        """Move the stage's bar."""
        if stage not in self._bars:
            # Only while there is a bar: exporters capture the terminal, and a live display would
            # write into what they capture.
            self._progress.start()
            self._bars[stage] = self._progress.add_task(stage, total=total, values="")
        shown = " ".join(f"{name} {values[name]:.3f}" for name in _BAR_VALUES if name in values)
        self._progress.update(self._bars[stage], completed=done, values=shown)
        if done == total:
            self._progress.remove_task(self._bars.pop(stage))
            self._progress.stop()
        if done % _WRITE_EVERY_STEPS == 0:
            for name, value in values.items():
                self._curves(f"{stage}/step/{name}", value, done)

    def decoded(self, done: int, total: int) -> None:
        """Move the bar of the images that are read before anything else happens."""
        self.step("images", done, total, {})

    def epoch(self, stage: str, epoch: int, values: Mapping[str, float]) -> None:
        """Print the epoch's means and append them to the stage's CSV."""
        figures = "  ".join(f"{name} {value:.4f}" for name, value in values.items())
        self.say(f"{stage} epoch {epoch}  {figures}")
        for name, value in values.items():
            self._curves(f"{stage}/{name}", value, epoch)
        if self._folder is not None:
            _append_row(self._folder / f"{stage}.csv", epoch, values)
            timings = json.dumps(self._timings_so_far())
            (self._folder / _TIMINGS_FILE).write_text(timings, encoding="utf-8")

    def _curves(self, name: str, value: float, at: int) -> None:
        if self._folder is None:
            return
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(self._folder / "tensorboard"))
        self._writer.add_scalar(name, value, at)


class _Within:
    """Passes on what it sees under a longer name, so that no rung overwrites another's rows."""

    def __init__(self, log: RunLog, folder: str) -> None:
        self._log, self._folder = log, folder

    def step(self, stage: str, done: int, total: int, values: Mapping[str, float]) -> None:
        self._log.step(f"{self._folder}/{stage}", done, total, values)

    def epoch(self, stage: str, epoch: int, values: Mapping[str, float]) -> None:
        self._log.epoch(f"{self._folder}/{stage}", epoch, values)


def _append_row(path: Path, epoch: int, values: Mapping[str, float]) -> None:
    """Append an epoch; a resumed run drops the rows that it does again."""
    rows: list[dict[str, str]] = []
    if path.exists():
        with path.open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if int(row["epoch"]) < epoch]
    path.parent.mkdir(parents=True, exist_ok=True)
    rows.append({"epoch": str(epoch), **{name: f"{value:.6g}" for name, value in values.items()}})
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[-1]), extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
