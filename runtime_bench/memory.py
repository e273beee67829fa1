"""Memory of this process, as the kernel counts it."""

from __future__ import annotations

from pathlib import Path

_STATUS = Path("/proc/self/status")


def parse_status(text: str) -> dict[str, int]:
    """The size lines of a /proc/PID/status text ("VmRSS:     1234 kB"), in bytes by name."""
    sizes: dict[str, int] = {}
    for line in text.splitlines():
        name, _, rest = line.partition(":")
        parts = rest.split()
        # The kernel writes "kB" and means KiB (proc_pid_status(5)).
        if len(parts) == 2 and parts[1] == "kB" and parts[0].isdigit():
            sizes[name] = int(parts[0]) * 1024
    return sizes


def rss_bytes() -> int | None:
    """Resident set size now (VmRSS); None where there is no /proc."""
    return _read("VmRSS")


def peak_rss_bytes() -> int | None:
    """Highest resident set size since this program started (VmHWM); None where there is no /proc.

    getrusage's ru_maxrss is no substitute: it survives exec, so a child of a large process would
    report its parent's peak.
    """
    return _read("VmHWM")


def _read(name: str) -> int | None:
    try:
        return parse_status(_STATUS.read_text(encoding="ascii", errors="replace")).get(name)
    except OSError:
        return None
