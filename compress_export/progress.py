"""What long work shows: a live view on a terminal, lines in a log, CSV and TensorBoard curves."""

from __future__ import annotations

import csv
import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.text import Text

from compress_export.pace import Batches, Pace
from compress_export.policy_trace import PolicyTrace
from compress_export.shown import print_line
from compress_export.whole_files import write_whole
from compressor.whole_files import whole_file
from runtime_bench.memory import rss_bytes

if TYPE_CHECKING:
    from torch import Tensor

TRACE_FILE = "policy.npz"
"""In the folder of a search by agents: their probabilities, see `policy_trace`."""

_DRAW_EVERY_S = 0.1
_LINE_EVERY_S = 60.0
"""In a log that nobody watches: epochs have lines of their own, and long ones some between."""

_SHOWN = (
    ("loss", "loss", 1, ".3f", ""),
    ("expected_load", "cost", 1, ".2f", "x limit"),
    ("kept_share", "kept", 100, ".1f", " %"),
    ("train_top1", "train", 100, ".1f", " %"),
    ("train_score", "train", 100, ".1f", " %"),
)
"""Value, its name for people, factor, format and unit."""

_WRITE_EVERY_STEPS = 10
_TIMINGS_FILE, _SETBACKS_FILE = "timings.json", "setbacks.json"


class RunLog:
    """Observer of training and search that also times the stages of a job.

    Args:
        folder: DIR.run; gets `STAGE.csv` and `tensorboard/`. None writes nothing, until `keep_in`.
            A stage may stand in a folder of its own, as "rung-2/search" does.
        console: where bars and lines go; without a terminal there are lines only.
        clock: seconds since any moment.

    Attributes:
        console: where bars and lines go.
        timings_seconds: wall time of every stage, by name.
        setbacks: why epochs had to be done again, a line each.
        batches: what the steps of a training are made of, once that is known.
    """

    def __init__(
        self,
        folder: Path | None,
        console: Console,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder: Path | None = None
        self._clock = clock
        self._said_s = clock()
        self._drawn_s = -math.inf
        self.batches: Batches | None = None
        self.timings_seconds: dict[str, float] = {}
        self.setbacks: list[str] = []
        self._running: tuple[str, float] | None = None
        self.console = console
        self._progress = _LiveView(
            TextColumn("{task.description:<15}"),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[pace]}"),
            expand=True,
            console=console,
            transient=True,
            disable=not console.is_terminal,  # a log gets the lines of the epochs alone
        )
        self._bars: dict[str, TaskID] = {}
        self._paces: dict[str, Pace] = {}
        self._scores: dict[str, float] = {}
        self._traces: dict[str, PolicyTrace] = {}
        self._writer: Any = None
        if folder is not None:
            self.keep_in(folder)

    def keep_in(self, folder: Path) -> None:
        """Write into DIR.run from here on; what an interrupted run had noted there counts too.

        That is its time up to its last whole epoch.
        """
        self._folder = folder
        for name, seconds in (self._noted(_TIMINGS_FILE) or {}).items():
            self.timings_seconds[name] = round(self.timings_seconds.get(name, 0.0) + seconds, 3)
        self.setbacks = [*(self._noted(_SETBACKS_FILE) or []), *self.setbacks]

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
        self._said_s = self._clock()
        print_line(self.console, text)

    def say_seldom(self, text: str) -> None:
        """Print one line of many alike; a log gets it only where none came for a minute."""
        if self.console.is_terminal or self._clock() - self._said_s >= _LINE_EVERY_S:
            self.say(text)

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

    def _noted(self, name: str) -> Any:
        path = None if self._folder is None else self._folder / name
        if path is None or not path.exists():
            return None
        return json.loads(path.read_text(encoding="utf-8"))

    def within(self, folder: str, *, batches: bool = True) -> _Within:
        """Return an observer whose stages stand in a folder: "search" becomes "FOLDER/search".

        Args:
            batches: their steps are batches of a training.
        """
        return _Within(self, folder, self.batches if batches else None)

    def step(self, stage: str, done: int, total: int, values: Mapping[str, float]) -> None:
        """Move the stage's bar, or print a line where none came for a minute."""
        self.paced_step(stage, done, total, values, self.batches)

    def paced_step(
        self,
        stage: str,
        done: int,
        total: int,
        values: Mapping[str, float],
        batches: Batches | None,
    ) -> None:
        """Do what `step` does, where steps are made of something else than usual."""
        pace = self._paces.setdefault(stage, Pace(batches))
        now_s = self._clock()
        pace.note(now_s, done, total)
        if self.console.is_terminal:
            if now_s - self._drawn_s >= _DRAW_EVERY_S or done == total:
                self._draw(stage, done, total, values, pace)
                self._drawn_s = now_s
        elif now_s - self._said_s >= _LINE_EVERY_S and done < total:
            self.say(f"{stage}: {', '.join([*pace.texts, *self._figures(stage, values)])}")
        if done == total:
            del self._paces[stage]
        if done % _WRITE_EVERY_STEPS == 0:
            for name, value in values.items():
                self._curves(f"{stage}/step/{name}", value, done)

    def _draw(
        self, stage: str, done: int, total: int, values: Mapping[str, float], pace: Pace
    ) -> None:
        if done == total:
            if stage in self._bars:
                self._progress.remove_task(self._bars.pop(stage))
                self._progress.stop()
            return
        paces, figures = "  ".join(pace.texts), "  ".join(self._figures(stage, values))
        if stage in self._bars:
            bar = self._bars[stage]
            self._progress.update(bar, completed=done, pace=paces, figures=figures)
            return
        # Only while there is a bar: exporters capture the terminal, and a live display would write
        # into what they capture.
        self._progress.start()
        self._bars[stage] = self._progress.add_task(
            stage, total=total, completed=done, pace=paces, figures=figures
        )

    def _figures(self, stage: str, values: Mapping[str, float]) -> list[str]:
        """What is known of the network at this moment, and the memory of this process."""
        found = [
            f"{text} {values[name] * factor:{form}}{unit}"
            for name, text, factor, form, unit in _SHOWN
            if name in values
        ]
        if stage in self._scores:
            found.append(f"validation {100 * self._scores[stage]:.2f} %")
        memory = rss_bytes()
        return found if memory is None else [*found, f"memory {memory / 2**20:,.0f} MiB"]

    def decoded(self, done: int, total: int) -> None:
        """Move the bar of the images that are read before anything else happens."""
        self.paced_step("images", done, total, {}, Batches(images=1, per_epoch=0))

    def epoch(self, stage: str, epoch: int, values: Mapping[str, float]) -> None:
        """Print the epoch's means and append them to the stage's CSV."""
        figures = "  ".join(f"{name} {value:.4f}" for name, value in values.items())
        self.say(f"{stage} epoch {epoch}  {figures}")
        for name in values.keys() & {"validation_top1", "validation_score"}:
            self._scores[stage] = values[name]
        if stage in self._traces:
            self._traces[stage].save()
        for name, value in values.items():
            self._curves(f"{stage}/{name}", value, epoch)
        if self._folder is not None:
            _append_row(self._folder / f"{stage}.csv", epoch, values)
            write_whole(self._folder / _TIMINGS_FILE, json.dumps(self._timings_so_far()))
            if self.setbacks:  # not before the epoch is through: a training may be given up
                write_whole(self._folder / _SETBACKS_FILE, json.dumps(self.setbacks))

    def setback(self, stage: str, text: str) -> None:
        """Print why an epoch is done again, and keep that for the report."""
        line = f"{stage}: {text}"
        self.say(line)
        if line not in self.setbacks:  # done again after a resume
            self.setbacks.append(line)

    def policy(self, progress: float, probabilities: Tensor) -> None:
        """Keep the agents' probabilities of a search that stands in no folder of its own."""
        self.note_policy("search", "", progress, probabilities)

    def note_policy(self, stage: str, folder: str, progress: float, probabilities: Tensor) -> None:
        """Keep the agents' probabilities, which the end of the epoch writes."""
        if self._folder is None:
            return
        if stage not in self._traces:
            self._traces[stage] = PolicyTrace(self._folder / folder / TRACE_FILE)
        self._traces[stage].note(progress, probabilities.numpy())

    def _curves(self, name: str, value: float, at: int) -> None:
        if self._folder is None:
            return
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(self._folder / "tensorboard"))
        self._writer.add_scalar(name, value, at)


class _LiveView(Progress):
    """Two lines for each stage: the bar with its pace, and the figures below."""

    def get_renderables(self) -> Iterable[RenderableType]:
        for task in self.tasks:
            yield self.make_tasks_table([task])
            yield Text(f"  {task.fields['figures']}", style="dim")


class _Within:
    """Passes on what it sees under a longer name, so that no rung overwrites another's rows."""

    def __init__(self, log: RunLog, folder: str, batches: Batches | None) -> None:
        self._log, self._folder, self._batches = log, folder, batches

    def step(self, stage: str, done: int, total: int, values: Mapping[str, float]) -> None:
        self._log.paced_step(f"{self._folder}/{stage}", done, total, values, self._batches)

    def policy(self, progress: float, probabilities: Tensor) -> None:
        self._log.note_policy(f"{self._folder}/search", self._folder, progress, probabilities)

    def setback(self, stage: str, text: str) -> None:
        self._log.setback(f"{self._folder}/{stage}", text)

    def epoch(self, stage: str, epoch: int, values: Mapping[str, float]) -> None:
        self._log.epoch(f"{self._folder}/{stage}", epoch, values)


def _append_row(path: Path, epoch: int, values: Mapping[str, float]) -> None:
    """Append an epoch; a resumed run drops the rows that it does again."""
    rows: list[dict[str, str]] = []
    if path.exists():
        with path.open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if int(row["epoch"]) < epoch]
    rows.append({"epoch": str(epoch), **{name: f"{value:.6g}" for name, value in values.items()}})
    with whole_file(path) as unfinished, unfinished.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[-1]), extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
