"""How this process was started: alone, or by torchrun as one of several. Imports nothing heavy."""

from __future__ import annotations

import os


def by_torchrun() -> bool:
    """Return whether torchrun started this process, with others or without."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def is_first() -> bool:
    """Return whether this is the process that writes."""
    return not by_torchrun() or os.environ.get("RANK", "0") == "0"


def is_first_here() -> bool:
    """Return whether this is the first of the processes on this machine."""
    return not by_torchrun() or os.environ.get("LOCAL_RANK", "0") == "0"


def was_restarted() -> bool:
    """Return whether torchrun started the processes again, because one of them had died."""
    return by_torchrun() and os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"
