"""Latencies with units: a bare number is refused."""

import re

from compress_export.sizes import shortened

_UNITS_MS = {"us": 1e-3, "ms": 1.0, "s": 1e3}
_MOST_MS = 24 * 3600 * 1e3
_PATTERN = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]+)\s*")


def parse_latency_ms(text: str) -> float:
    """Milliseconds of a latency such as "5ms", "0.8 ms" or "250us" (the case of the unit is free).

    Raises ValueError with the allowed units where the unit is missing or unknown, for zero, and for
    more than a day.
    """
    match = _PATTERN.fullmatch(text)
    factor = _UNITS_MS.get(match.group(2).lower()) if match else None
    if match is None or factor is None:
        raise ValueError(f"{text!r} is not a latency: give a number with ms, us or s, as in 5ms")
    milliseconds = float(match.group(1)) * factor
    if milliseconds <= 0:
        raise ValueError(f"{text!r} is not above zero")
    if milliseconds > _MOST_MS:
        raise ValueError(f"{shortened(text)!r} is more than a day")
    return milliseconds
