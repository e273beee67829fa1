"""Whether an INT8 file gains anything over the float file of the same network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from runtime_bench.measurement import Measurement


def without_gain(
    measurements: Sequence[Measurement],
) -> Iterator[tuple[Measurement, Measurement]]:
    """INT8 files that are slower than their float file and no smaller, each with that file.

    Both were measured in the same runtime and run, on the board or on a host that has its kernels;
    of other files nothing is known that would hold on the board.
    """
    floats = {
        (item.stage, item.format, item.runtime): item
        for item in measurements
        if item.precision == "float32"
    }
    for item in measurements:
        reference = floats.get((item.stage, item.format, item.runtime))
        if not item.precision.startswith("int") or reference is None or not item.latency_counts:
            continue
        if item.latency_ms is None or reference.latency_ms is None:
            continue
        slower = item.latency_ms["p50"] > reference.latency_ms["p50"]
        if slower and item.size_bytes >= reference.size_bytes:
            yield item, reference
