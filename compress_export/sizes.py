"""Sizes with units: MiB is 2**20 bytes, MB is 10**6, and a bare number is refused."""

import re

_UNITS = {
    "B": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "KIB": 2**10,
    "MIB": 2**20,
    "GIB": 2**30,
}
_MOST_BYTES = 2**63
_PATTERN = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]+)\s*")


def parse_size(text: str) -> int:
    """Bytes of a size such as "1MiB", "500 KiB" or "2MB" (the case of the unit is free).

    Raises ValueError with the allowed units where the unit is missing or unknown, and for
    sizes below one byte or beyond any disk.
    """
    match = _PATTERN.fullmatch(text)
    factor = _UNITS.get(match.group(2).upper()) if match else None
    if match is None or factor is None:
        raise ValueError(f"{text!r} is not a size: give a number with B, KB, MB, KiB or MiB")
    size_bytes = float(match.group(1)) * factor
    if size_bytes < 1:
        raise ValueError(f"{text!r} is less than one byte")
    if size_bytes > _MOST_BYTES:
        raise ValueError(f"{shortened(text)!r} is more than {_MOST_BYTES // 2**60} EiB")
    return int(size_bytes)


def shortened(text: str) -> str:
    """What a message shows of a text that may be long."""
    return text if len(text) <= 40 else f"{text[:37]}..."


def mib(size_bytes: float) -> str:
    """Human form in MiB with three significant digits, e.g. "1.07", "0.0214" or "129"."""
    amount = size_bytes / 2**20
    return f"{amount:.0f}" if amount >= 100 else f"{amount:#.3g}"
