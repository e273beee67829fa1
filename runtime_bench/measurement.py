"""What is known of one model file after measuring it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Measurement:
    """Figures of one file. None means: not measured, with the reason in `note` where there is one.

    Attributes:
        folder: the model folder as it was given; `path` is relative to it.
        size_bytes: bytes on disk, side files counted.
        weight_bytes: bytes of the constants by dtype, from the manifest.
        activation_bytes: liveness lower bound at batch 1, from the manifest.
        top1, agreement, precision_macro, recall_macro: fractions of 1. Agreement is with torch's
            predictions for the file's stage.
        score: mean of a metric of the user's own, which compress_export evaluates; the accuracy
            budget goes by it then, and top1 and the like are None.
        samples: how many images those five stand on.
        eval_seconds: wall time of evaluating all samples: reading, normalising and running.
        latency_ms: p50, p90 and p99 of single images, in milliseconds.
        latency_runs: how many timed runs those stand on.
        rss_before_load_bytes: RSS with the runtime imported and no file loaded.
        rss_after_load_bytes: RSS with the file loaded, before the first run.
        peak_rss_bytes: highest RSS of the process up to the end of the latency runs.
        peak_rss_no_arena_bytes: the same with onnxruntime's CPU arena off; None for TFLite.
        runtime: name and version, e.g. "onnxruntime 1.31.1".
        arena: fields of `micro.Arena`, for an integer file of a microcontroller; None where
            tflite-micro isn't installed.
        measured_on: "board" or "host", for every figure above.
        host_matches_board: whether the machine runs the board's kernels, see `host.host_matches`.
        profile: the target whose rules the exporter checked; None for a float file.
        benchable: the bench runs the file as the board does; False for accelerators and
            microcontrollers, whose latency it can't tell.
    """

    name: str
    stage: str
    folder: str
    path: str
    format: str
    precision: str
    size_bytes: int
    sha256: str
    weight_bytes: dict[str, int] | None
    activation_bytes: int | None
    threads: int
    measured_on: str
    host_matches_board: bool
    top1: float | None = None
    agreement: float | None = None
    precision_macro: float | None = None
    recall_macro: float | None = None
    score: float | None = None
    samples: int | None = None
    eval_seconds: float | None = None
    latency_ms: dict[str, float] | None = None
    latency_runs: int | None = None
    rss_before_load_bytes: int | None = None
    rss_after_load_bytes: int | None = None
    peak_rss_bytes: int | None = None
    peak_rss_no_arena_bytes: int | None = None
    runtime: str | None = None
    arena: dict[str, Any] | None = None
    profile: str | None = None
    benchable: bool = True
    note: str = ""

    @property
    def ram_bytes(self) -> int | None:
        """What the activations take: the smallest arena where it is known, else a lower bound."""
        return self.activation_bytes if self.arena is None else int(self.arena["smallest_bytes"])

    @property
    def latency_counts(self) -> bool:
        """Whether the latency is one that the board would have, in kind."""
        near = self.measured_on == "board" or self.host_matches_board
        return self.latency_ms is not None and self.benchable and near

    @property
    def profile_status(self) -> str | None:
        """What stands behind the claim that the file suits its target."""
        if self.profile is None:
            return None
        if not self.latency_counts:
            return "checked by rule, not measured"
        if self.measured_on == "board":
            return "checked by rule, measured on the board"
        return "checked by rule, measured on a host with the board's instruction sets"

    def to_json(self) -> dict[str, Any]:
        """All fields and `profile_status` as plain JSON values."""
        return {**asdict(self), "profile_status": self.profile_status}
