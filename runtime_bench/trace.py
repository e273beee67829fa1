"""What stands behind the figures of one file: every time and every answer."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Trace:
    """The raw results of one file.

    Attributes:
        name: of the file, as in its `Measurement`.
        times_ms: latency of single images in the order in which they ran.
        predictions: class of every test image; None where none were evaluated.
    """

    name: str
    times_ms: tuple[float, ...]
    predictions: tuple[int, ...] | None
