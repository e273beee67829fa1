"""Units in key names: what they mean, and what a figure in another unit would be.

Only for error messages; a descriptor is never converted silently.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

# Unit suffix of a key to what it stands for.
MEANING = {
    "mib": "MiB (2**20 bytes)",
    "ms": "milliseconds",
    "mhz": "MHz",
    "points": "percentage points",
}

# Unit as people write it to (unit suffix of our keys, factor).
CONVERSIONS: dict[str, tuple[str, float]] = {
    "b": ("mib", 2.0**-20),
    "bytes": ("mib", 2.0**-20),
    "kb": ("mib", 1e3 / 2**20),
    "kib": ("mib", 2.0**-10),
    "mb": ("mib", 1e6 / 2**20),
    "mib": ("mib", 1.0),
    "gb": ("mib", 1e9 / 2**20),
    "gib": ("mib", 2.0**10),
    "tb": ("mib", 1e12 / 2**20),
    "us": ("ms", 1e-3),
    "ms": ("ms", 1.0),
    "s": ("ms", 1e3),
    "hz": ("mhz", 1e-6),
    "mhz": ("mhz", 1.0),
    "ghz": ("mhz", 1e3),
    "%": ("points", 1.0),
    "percent": ("points", 1.0),
    "points": ("points", 1.0),
}

QUANTITY = re.compile(r"^\s*([+-]?\d+(?:\.\d+)?)\s*([A-Za-z%]*)\s*$")


def unit_of(key: str) -> str | None:
    """The unit suffix of one of our keys, e.g. ``mib`` of ``total_mib``."""
    suffix = key.rpartition("_")[2]
    return suffix if suffix in MEANING else None


def unit_hint(key: str) -> str:
    """``, a number in MiB (2**20 bytes)`` for ``total_mib``; empty for a key without a unit."""
    unit = unit_of(key)
    return f", a number in {MEANING[unit]}" if unit else ""


def key_with_allowed_unit(key: str, allowed: Sequence[str]) -> str | None:
    """The allowed key that is this one in another unit: ``total_mib`` for ``total_gb``."""
    stem, _, suffix = key.lower().rpartition("_")
    if suffix not in CONVERSIONS:
        stem = key.lower()
    twins = [name for name in allowed if unit_of(name) and name.rpartition("_")[0] == stem != name]
    return twins[0] if twins else None


def explain_number(key: str, value: Any, written_key: str | None = None) -> str:
    """What to write instead of a value that is not a plain number in the key's unit.

    Args:
        key: the key that the schema allows, e.g. ``total_mib``.
        value: what was written, e.g. ``"32 GB"``, or ``32`` under ``written_key``.
        written_key: the key that was written instead, e.g. ``total_gb``.
    """
    unit = unit_of(key)
    start = f"write {key}" if written_key else f"{value!r} is not a plain number"
    wants = f" in {MEANING[unit]}" if unit else ""
    converted = _converted(value, unit, written_key)
    if written_key:
        return f"{start}{wants}" + (f": {key}: {converted:g}" if converted is not None else "")
    if converted is not None:
        return f"{start}; {key} is a number{wants}: write {converted:g}"
    return f"{start}{f'; {key} is a number{wants}' if wants else ''}"


def _converted(value: Any, unit: str | None, written_key: str | None) -> float | None:
    """The figure in our unit, where text or key say which unit it was written in."""
    match = QUANTITY.match(str(value))
    if match is None or isinstance(value, bool):
        return None
    written = match[2].lower() or (written_key or "").lower().rpartition("_")[2]
    if written not in CONVERSIONS:
        return float(match[1]) if isinstance(value, str) and not written else None
    to, factor = CONVERSIONS[written]
    return float(match[1]) * factor if to == unit else None
