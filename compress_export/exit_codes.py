"""Exit codes of every command: a CI job can tell a missed budget from a broken tool."""

from collections.abc import Iterable
from enum import IntEnum


class ExitCode(IntEnum):
    """What the process says when it ends; README.md and docs/cli.md carry the same table."""

    PASSED = 0
    BUDGET_MISSED = 1
    USER_MISTAKE = 2
    TOOL_FAILED = 3
    NOT_MEASURED = 4
    INTERRUPTED = 130
    TERMINATED = 143


# A failed tool says nothing about budgets, and a missed budget outweighs a missing measurement.
_PRECEDENCE = (
    ExitCode.TOOL_FAILED,
    ExitCode.BUDGET_MISSED,
    ExitCode.NOT_MEASURED,
    ExitCode.PASSED,
)


def worst(codes: Iterable[ExitCode]) -> ExitCode:
    """The code that stands for several outcomes: 3 before 1 before 4 before 0.

    Raises ValueError for codes that never meet others (2, 130, 143): those end the run at once.
    """
    found = set(codes)
    if strangers := found - set(_PRECEDENCE):
        raise ValueError(f"codes {sorted(strangers)} end a run at once and cannot be combined")
    return next((code for code in _PRECEDENCE if code in found), ExitCode.PASSED)


def verdict_code(statuses: Iterable[str], *, require_measured: bool) -> ExitCode:
    """Code for the statuses of all checks: each is "pass", "fail" or "unverified".

    An unverified budget passes unless measuring it was required. Any other status is a
    programming error and raises ValueError: an unknown outcome never counts as a pass.
    """
    codes = {
        "pass": ExitCode.PASSED,
        "fail": ExitCode.BUDGET_MISSED,
        "unverified": ExitCode.NOT_MEASURED if require_measured else ExitCode.PASSED,
    }
    found = set(statuses)
    if strangers := found - codes.keys():
        raise ValueError(f"unknown check status {sorted(strangers)}; known: {sorted(codes)}")
    return worst(codes[status] for status in found)
