"""Limits as people write them: `size: 1MiB`, `latency: 5ms`, `top1: 0.2 points`.

One set of short names serves the checked-in file (gate.yaml) and `--fail-on`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from boards.strict_yaml import read_yaml
from compress_export.durations import parse_latency_ms
from compress_export.errors import UsageError
from compress_export.sizes import parse_size

MIB = 2**20
_POINTS = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(?:points?)?\s*")
_SHARE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*%\s*")


@dataclass(frozen=True)
class Allowed:
    """How much worse a figure may be than in the old report.

    Attributes:
        amount: in `unit`.
        unit: "%" of the old figure, or the figure's own unit.
    """

    amount: float
    unit: str


@dataclass(frozen=True)
class Limits:
    """What a gate file asks for.

    Attributes:
        budgets: name of a budget -> limit in its unit, in place of the board's own.
        regressions: short name -> how much worse it may be.
    """

    budgets: Mapping[str, float] = field(default_factory=dict)
    regressions: Mapping[str, Allowed] = field(default_factory=dict)


def _mib(text: str) -> float:
    return parse_size(text) / MIB


def _points(text: str) -> float:
    match = _POINTS.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a number of points: write 0.5 points")
    return float(match.group(1))


def _or_share(parse: Callable[[str], float], unit: str) -> Callable[[str], Allowed]:
    """A share of the old figure, or an amount in the figure's own unit."""

    def parsed(text: str) -> Allowed:
        share = _SHARE.fullmatch(text)
        if share is not None:
            return Allowed(float(share.group(1)), "%")
        try:
            return Allowed(parse(text), unit)
        except ValueError as error:
            raise ValueError(f"{error}, or a share of the old figure, as in 2%") from None

    return parsed


# short name -> budget, and what reads its limit
BUDGET_OF: Mapping[str, tuple[str, Callable[[str], float]]] = {
    "size": ("file_size_mib", _mib),
    "weights": ("weights_mib", _mib),
    "activations": ("activation_memory_mib", _mib),
    "memory": ("peak_rss_mib", _mib),
    "latency": ("latency_p90_ms", parse_latency_ms),
    "drop": ("accuracy_drop_points", _points),
}

_REGRESSIONS: Mapping[str, Callable[[str], Allowed]] = {
    "size": _or_share(_mib, "MiB"),
    "weights": _or_share(_mib, "MiB"),
    "activations": _or_share(_mib, "MiB"),
    "memory": _or_share(_mib, "MiB"),
    "latency": _or_share(parse_latency_ms, "ms"),
    "top1": lambda text: Allowed(_points(text), "points"),
}
_SECTIONS = ("limits", "regressions")


def read_limits(path: Path) -> Limits:
    """Read a gate file.

    Raises:
        UsageError: all of its mistakes in one line.
    """
    content = _content(path)
    problems = [_unknown(key, _SECTIONS) for key in content if key not in _SECTIONS]
    found: dict[str, dict[str, Any]] = {}
    parsers: Mapping[str, Mapping[str, Callable[[str], Any]]] = {
        "limits": {name: parse for name, (_, parse) in BUDGET_OF.items()},
        "regressions": _REGRESSIONS,
    }
    for section in _SECTIONS:
        found[section], wrong = _parsed(content.get(section), parsers[section], section)
        problems += wrong
    if not problems and not any(found.values()):
        problems = [f"holds no limit; known are {', '.join(BUDGET_OF)} under limits:"]
    if problems:
        raise UsageError(f"--limits {path}: {'; '.join(problems)}")
    budgets = {BUDGET_OF[name][0]: value for name, value in found["limits"].items()}
    return Limits(budgets, found["regressions"])


def parse_fail_on(texts: Iterable[str]) -> dict[str, Allowed]:
    """Read `--fail-on "size:2% latency:10% top1:0.2"`; commas do as well as blanks.

    Raises:
        UsageError: all mistakes in one line.
    """
    found: dict[str, Allowed] = {}
    problems: list[str] = []
    for part in (part for text in texts for part in re.split(r"[\s,]+", text) if part):
        name, colon, amount = part.partition(":")
        if not colon:
            problems.append(f"{part!r} is not NAME:AMOUNT")
        elif name in found:
            problems.append(f"{name!r} is there twice")
        else:
            values, wrong = _parsed({name: amount}, _REGRESSIONS, "")
            found.update(values)
            problems += wrong
    if not found and not problems:
        problems = ["names nothing"]
    if problems:
        text = "; ".join(problems)
        raise UsageError(f'--fail-on: {text}; write it as in "size:2% latency:10% top1:0.2"')
    return found


def _content(path: Path) -> Mapping[Any, Any]:
    try:
        content = read_yaml(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise UsageError(f"--limits {path}: cannot be read ({reason})") from None
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise UsageError(f"--limits {path}: not valid YAML: {reason}") from None
    if not isinstance(content, dict):
        kind = "nothing" if content is None else f"a {type(content).__name__}"
        raise UsageError(f"--limits {path}: holds {kind}; wanted are limits: and regressions:")
    return content


def _parsed(
    section: object, parsers: Mapping[str, Callable[[str], Any]], where: str
) -> tuple[dict[str, Any], list[str]]:
    """Values by name, and the mistakes; a bare number has no unit and is refused."""
    prefix = f"{where}." if where else ""
    if section is None:
        return {}, []
    if not isinstance(section, dict):
        return {}, [f"{where}: holds a {type(section).__name__}, wanted are lines as size: 1MiB"]
    found: dict[str, Any] = {}
    problems = []
    for name, value in section.items():
        if name not in parsers:
            problems.append(prefix + _unknown(name, parsers))
            continue
        try:
            found[name] = parsers[name](value if isinstance(value, str) else _number(value))
        except ValueError as error:
            problems.append(f"{prefix}{name}: {error}")
    return found, problems


def _number(value: object) -> str:
    """A number as it would be written; where a unit is needed, its parser asks for it."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{value!r} is neither a number nor text")
    return f"{value:g}"


def _unknown(key: object, known: Iterable[str]) -> str:
    names = list(known)
    close = difflib.get_close_matches(str(key), names, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(names)}"
    return f"unknown key {str(key)!r}, {hint}"
