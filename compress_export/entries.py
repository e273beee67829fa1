"""What is asked of a stage or a file in report.json again and again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

STATUS_STYLES = {"pass": "green", "fail": "bold red", "unverified": "yellow"}
"""How a terminal shows a check or a verdict."""


def score_of(entry: Mapping[str, Any]) -> float | None:
    """Top-1, or the mean of the user's metric, of a stage or file; a fraction."""
    score: float | None = entry.get("top1") if entry.get("score") is None else entry["score"]
    return None if score is None else float(score)


def p90_ms(entry: Mapping[str, Any]) -> float | None:
    """The latency of a file that budgets are about."""
    return (entry.get("latency_ms") or {}).get("p90")


def goes_to_the_board(entry: Mapping[str, Any]) -> bool:
    """Whether a file is in the bundle, and not beside it to be compared with."""
    return str(entry["path"]).startswith("bundle/")
