"""Compare measurements with the board's budgets, one check per deployable file and budget."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from runtime_bench.manifest import BUDGETS, Manifest, ModelFile
from runtime_bench.measurement import Measurement

MIB = 2**20
PASS, FAIL, UNVERIFIED = "pass", "fail", "unverified"
EXIT_PASSED, EXIT_MISSED, EXIT_NOT_MEASURED = 0, 1, 4

UNITS = {
    "file_size_mib": "MiB",
    "weights_mib": "MiB",
    "activation_memory_mib": "MiB",
    "peak_rss_mib": "MiB",
    "latency_p90_ms": "ms",
    "accuracy_drop_points": "points",
    "ram_mib": "MiB",
    "flash_mib": "MiB",
}
INTEGER_ARITHMETIC = ("int8", "int8-dynamic", "int8-int16")
_DIGITS = 9
SAME_POINTS = 0.5 * 10**-_DIGITS
"""Drops this near to a limit, in percentage points, meet it."""
MACHINE_BOUND = ("peak_rss_mib", "latency_p90_ms")
"""Budgets whose value depends on the machine; the others are the same wherever they are taken."""


@dataclass(frozen=True)
class Check:
    """One budget of one file.

    Attributes:
        file: the model file's name; "" where the bundle has no deployable file.
        value: in `unit`; None where nothing was measured.
        status: "pass", "fail", or "unverified": not decided, which never counts as a pass.
        note: why it is unverified, or what the value stands on.
    """

    file: str
    budget: str
    value: float | None
    limit: float
    unit: str
    status: str
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        value = "not measured" if self.value is None else f"{self.value:.4g} {self.unit}"
        text = f"{self.status}: {self.file} {self.budget} {value}, limit {self.limit:g} {self.unit}"
        return f"{text} ({self.note})" if self.note else text


def verdict(
    measurements: Sequence[Measurement], bundle: Manifest, *, baseline_top1: float | None
) -> tuple[Check, ...]:
    """Check every budget of `bundle` on each of its files.

    Args:
        measurements: may hold other files too (the reference folder's); those are left alone.
        bundle: the manifest of the deployable folder, which names files, board and budgets.
        baseline_top1: the baseline's float top-1 on the same samples, a fraction of 1; where the
            measurements have a score of the user's metric, that score.
    """
    limits = _in_order(bundle.budgets)
    if not bundle.files:
        note = "the bundle holds no file"
        return tuple(Check("", n, None, lim, UNITS[n], UNVERIFIED, note) for n, lim in limits)
    wants = " ".join((bundle.board.arch, *bundle.board.isa))
    board = f"{bundle.board.id} ({wants})"
    return tuple(
        check
        for file in bundle.files
        for check in _checks(
            file.name, _find(measurements, file), bundle.budgets, board, baseline_top1
        )
    )


def judge(
    item: Measurement, budgets: Mapping[str, float], *, board: str, baseline_top1: float | None
) -> tuple[Check, ...]:
    """Check the budgets of any board on one measured file.

    Args:
        item: says itself whether it was measured on the board or a host that matches it.
        budgets: by the names in BUDGETS.
        board: as people know it, for notes.
        baseline_top1: as for `verdict`.
    """
    return _checks(item.name, item, budgets, board, baseline_top1)


def _in_order(budgets: Mapping[str, float]) -> list[tuple[str, float]]:
    return [(name, budgets[name]) for name in BUDGETS if name in budgets]


def _checks(
    name: str,
    item: Measurement | None,
    budgets: Mapping[str, float],
    board: str,
    baseline_top1: float | None,
) -> tuple[Check, ...]:
    return tuple(
        _check(name, item, board, budget, limit, baseline_top1)
        for budget, limit in _in_order(budgets)
    )


def _find(measurements: Sequence[Measurement], file: ModelFile) -> Measurement | None:
    """The measurement of exactly these bytes: a stale one of the same name doesn't count."""
    for item in measurements:
        if item.name == file.name and item.sha256 == file.sha256:
            return item
    return None


def _check(
    name: str,
    item: Measurement | None,
    board: str,
    budget: str,
    limit: float,
    baseline_top1: float | None,
) -> Check:
    def check(value: float | None, status: str, note: str) -> Check:
        return Check(name, budget, value, limit, UNITS[budget], status, note)

    if item is None:
        return check(None, UNVERIFIED, "this file was not measured")
    value, missing = _value(item, budget, baseline_top1)
    if value is None:
        return check(None, UNVERIFIED, item.note or missing)
    note = _memory_note(item) if budget in ("activation_memory_mib", "ram_mib") else ""
    if budget in MACHINE_BOUND:
        if budget == "latency_p90_ms" and not item.benchable:
            what = item.profile or "what the board computes on"
            elsewhere = f"the bench times CPU cores, not {what}; measure it there"
            return check(value, UNVERIFIED, elsewhere)
        if item.measured_on != "board" and not item.host_matches_board:
            foreign = f"measured on a host unlike {board}; measure on the board"
            return check(value, UNVERIFIED, foreign)
        if item.measured_on != "board":
            note = "measured on a host with the board's architecture and isa"
    # "not <=" rather than ">": a NaN must not pass.
    return check(value, PASS if value <= limit else FAIL, note)


def _memory_note(item: Measurement) -> str:
    if item.arena is not None:
        return f"smallest arena in {item.arena['runtime']}"
    if item.profile != "tflite-micro":
        return "liveness lower bound"
    return "liveness lower bound: the arena was not measured, tflite-micro is not installed"


def _value(item: Measurement, budget: str, baseline_top1: float | None) -> tuple[float | None, str]:
    """The figure that a budget is about, and what to say where there is none."""
    readers: dict[str, Callable[[], tuple[float | None, str]]] = {
        "file_size_mib": lambda: (_mib(item.size_bytes), ""),
        "weights_mib": lambda: (
            _mib(sum(item.weight_bytes.values()) if item.weight_bytes else None),
            "the manifest gives no weight bytes",
        ),
        "activation_memory_mib": lambda: (
            _mib(item.ram_bytes),
            "the manifest gives no activation bytes",
        ),
        "peak_rss_mib": lambda: (_mib(item.peak_rss_bytes), "this system reports no peak RSS"),
        "latency_p90_ms": lambda: (
            item.latency_ms["p90"] if item.latency_ms else None,
            "no latency was measured",
        ),
        "accuracy_drop_points": lambda: _drop(item, baseline_top1),
        "ram_mib": lambda: (_mib(item.ram_bytes), "the manifest gives no activation bytes"),
        "flash_mib": lambda: (_mib(item.size_bytes), ""),
    }
    return readers[budget]()


def _drop(item: Measurement, baseline_top1: float | None) -> tuple[float | None, str]:
    score = item.top1 if item.score is None else item.score
    if score is None:
        return None, "accuracy was not measured: no samples were given"
    if baseline_top1 is None:
        return None, "the baseline's top-1 is not known"
    return drop_points(baseline_top1, score), ""


def drop_points(baseline: float, score: float) -> float:
    """Percentage points between two fractions, rounded so that 0.90 -> 0.89 is a drop of 1 point,
    not of 1.0000000000000009."""
    return round((baseline - score) * 100, _DIGITS)


def _mib(size_bytes: int | None) -> float | None:
    return None if size_bytes is None else size_bytes / MIB


def overall(checks: Sequence[Check]) -> str:
    """The worst status: fail before unverified before pass; no budgets at all is a pass."""
    statuses = {check.status for check in checks}
    return next((status for status in (FAIL, UNVERIFIED) if status in statuses), PASS)


def violations(checks: Sequence[Check]) -> tuple[Check, ...]:
    """The checks that failed."""
    return tuple(check for check in checks if check.status == FAIL)


def worst(checks: Sequence[Check]) -> tuple[Check, ...]:
    """One check per budget, that of the worst file: by status, then by value."""
    order = {FAIL: 2, UNVERIFIED: 1, PASS: 0}

    def badness(check: Check) -> tuple[int, float]:
        return order[check.status], float("inf") if check.value is None else check.value

    names = [name for name in BUDGETS if any(check.budget == name for check in checks)]
    return tuple(
        max((check for check in checks if check.budget == name), key=badness) for name in names
    )


def exit_code(checks: Sequence[Check], require_measured: bool = False) -> int:
    """0 passed, 1 a budget missed, 4 a budget unverified though measuring was required."""
    status = overall(checks)
    if status == FAIL:
        return EXIT_MISSED
    return EXIT_NOT_MEASURED if status == UNVERIFIED and require_measured else EXIT_PASSED


def slower_int8(measurements: Sequence[Measurement]) -> tuple[str, ...]:
    """One warning per INT8 file whose p50 is above its stage's float file of the same format."""
    floats = {
        (item.stage, item.format): item
        for item in measurements
        if item.precision == "float32" and item.latency_ms
    }
    warnings = []
    for item in measurements:
        reference = floats.get((item.stage, item.format))
        if item.precision not in INTEGER_ARITHMETIC or item.latency_ms is None or reference is None:
            continue
        assert reference.latency_ms is not None
        p50, float_p50 = item.latency_ms["p50"], reference.latency_ms["p50"]
        if p50 > float_p50:
            warnings.append(
                f"{item.name} is slower than {reference.name}: p50 {p50:.3f} ms against "
                f"{float_p50:.3f} ms in {item.runtime} with {item.threads} thread(s)"
            )
    return tuple(warnings)
