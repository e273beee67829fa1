"""How fast a stage goes and how long it still takes, as people want to read it."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

_WINDOW_S = 30.0


@dataclass(frozen=True)
class Batches:
    """What the steps of a training are made of.

    Attributes:
        images: in one step.
        per_epoch: steps in one epoch; 0 where there are no epochs.
    """

    images: int
    per_epoch: int


class Pace:
    """The steps of one stage over the last half minute.

    A resumed stage starts in the middle, and one that gets quicker while channels are cut out soon
    shows it.

    Args:
        batches: what its steps are; None where they are something else than batches of a training.
    """

    def __init__(self, batches: Batches | None) -> None:
        self._batches = batches
        self._seen: deque[tuple[float, int]] = deque()
        self._total = 0

    def note(self, now_s: float, done: int, total: int) -> None:
        """Note that `done` of `total` steps were done at a time, in seconds of any clock."""
        self._total = total
        self._seen.append((now_s, done))
        while len(self._seen) > 2 and now_s - self._seen[1][0] >= _WINDOW_S:
            self._seen.popleft()

    @property
    def steps_per_s(self) -> float | None:
        """None as long as there is nothing to tell it by."""
        (first_s, first), (last_s, last) = self._seen[0], self._seen[-1]
        return (last - first) / (last_s - first_s) if last_s > first_s else None

    @property
    def texts(self) -> list[str]:
        """Epoch, share done, rate and remaining time, as far as they are known."""
        done, rate = self._seen[-1][1], self.steps_per_s
        if self._batches is not None and (per_epoch := self._batches.per_epoch):
            # the step that ends an epoch still belongs to it
            found = [f"epoch {-(-done // per_epoch)}/{-(-self._total // per_epoch)}"]
        else:
            found = [f"{done}/{self._total}"]
        found.append(f"{100 * done // self._total} %")
        if rate:
            images = self._batches.images if self._batches else 1
            unit = "images" if self._batches else "steps"
            speed = rate * images
            found.append(f"{speed:.3g} {unit}/s" if speed < 10 else f"{speed:,.0f} {unit}/s")
            found.append(f"{duration((self._total - done) / rate)} left")
        return found


def duration(seconds: float) -> str:
    """A time for people: "8 s", "4 min", "2 h 05 min"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"
