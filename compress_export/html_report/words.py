"""Figures as people read them; "–" where there is none."""

from __future__ import annotations

NONE = "–"


def size_text(size_bytes: float | None) -> str:
    """Bytes in KiB or MiB with three digits."""
    if size_bytes is None:
        return NONE
    if size_bytes < 1024:
        return f"{size_bytes:.0f} B"
    unit, amount = ("KiB", size_bytes / 2**10)
    if amount >= 999.5:
        unit, amount = ("MiB", size_bytes / 2**20)
    return f"{_three_digits(amount)} {unit}"


def ms_text(milliseconds: float | None) -> str:
    """A latency in milliseconds, below 0.1 in microseconds."""
    if milliseconds is None:
        return NONE
    if milliseconds < 0.1:
        return f"{_three_digits(milliseconds * 1000)} µs"
    return f"{_three_digits(milliseconds)} ms"


def percent_text(share: float | None) -> str:
    """A fraction in percent with two decimals."""
    return NONE if share is None else f"{100 * share:.2f} %"


def points_text(points: float) -> str:
    """A difference of percentages with its sign, "−0.30 points"."""
    return f"{points:+.2f} points".replace("-", "−")


def count_text(count: float | None) -> str:
    """A count with three digits and its unit: 40551808 -> "40.6M"."""
    if count is None:
        return NONE
    for factor, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= factor * 0.9995:  # what rounds to 1000 of a unit is 1 of the next
            return f"{_three_digits(count / factor)}{unit}"
    return f"{count:g}"


def ratio_text(before: float | None, after: float | None) -> str:
    """How many times smaller something became: "8.4×"; "" where that is unknown."""
    return f"{_two_digits(before / after)}×" if before and after else ""


def seconds_text(seconds: float) -> str:
    """A time: "0.4 s", "12 s", "3 min 20 s", "2 h 05 min"."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def _three_digits(amount: float) -> str:
    return f"{amount:.0f}" if amount >= 100 else f"{amount:#.3g}"


def _two_digits(amount: float) -> str:
    return f"{amount:.0f}" if amount >= 10 else f"{amount:.1f}"
