"""kill -9 at points spread over a transfer: what the device has afterwards."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import Popen
from typing import Any

from benchmarks.deploy.device import Device, deploy, kill, start_deploy
from compress_export.deploy.payload import read_payload

POINTS = 20
AFTER = 6  # of them once all bytes are there: while the device checks and switches
STEP_S = 0.05
BYTES_PER_S = 4 * 2**20

Row = dict[str, Any]


def cut_transfers(device: Device, old: Path, new: Path, say: Callable[[str], None]) -> list[Row]:
    """Deploy `new` over `old` POINTS times, each time cut at another point and by another kill."""
    counter = device.server.folder / "carried"
    slow = device.slow_line(BYTES_PER_S, counter)
    folder = device.home / "cuts"
    at = f"board:{folder}"
    _expect_success(deploy(device.server.config, old, at))
    digests = {read_payload(old).digest: "old", read_payload(new).digest: "new"}
    total = read_payload(new).size_bytes
    victims = list(VICTIMS)
    rows = []
    for point in range(POINTS):
        victim = victims[point % len(victims)]
        process = start_deploy(slow, new, at)
        during = POINTS - AFTER
        share = min(1.0, (point + 0.5) / during)
        carried = _wait_for(counter, share * total, process)
        time.sleep(STEP_S * max(0, point - during + 1))
        kill(VICTIMS[victim](device, process))
        process.communicate()
        device.wait_until_idle()
        state = digests.get(current_digest(folder), "a mixture")
        rows.append({
            "point": point + 1, "killed": victim, "carried_share": round(carried / total, 3),
            "waited_s": round(STEP_S * max(0, point - during + 1), 2),
            "device_has": state, "leftovers": _leftovers(folder), "code": process.returncode,
        })  # fmt: skip
        say(f"{rows[-1]}")
        counter.write_text("0")
        if state == "new":
            _expect_success(deploy(device.server.config, "--rollback", at))
    _expect_success(deploy(device.server.config, new, at))
    last = digests[current_digest(folder)]
    rows.append({"point": "undisturbed", "device_has": last, "leftovers": _leftovers(folder)})
    return rows


def current_digest(folder: Path) -> str:
    """Return the digest of what `current` leads to, computed anew from all files there."""
    current = folder / "current"
    names = sorted(p.relative_to(current) for p in current.rglob("*") if p.is_file())
    sums = "".join(f"{_sha256(current / name)}  {name.as_posix()}\n" for name in names)
    return hashlib.sha256(sums.encode()).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _wait_for(counter: Path, wanted_bytes: float, process: Popen[str]) -> int:
    """Wait until so many bytes went, or the deploy ended."""
    while True:
        text = counter.read_text() if counter.is_file() else ""
        carried = int(text or 0)
        if carried >= wanted_bytes or process.poll() is not None:
            return carried
        time.sleep(0.01)


def _leftovers(folder: Path) -> int:
    """Folders of versions that no link names."""
    kept = {
        link.readlink().parts[1]
        for link in (folder / "current", folder / "previous")
        if link.is_symlink()
    }
    return sum(path.name not in kept for path in (folder / "versions").iterdir())


def _expect_success(ended: tuple[int, str]) -> None:
    if ended[0]:
        raise RuntimeError(f"deploy ended with {ended}")


def _local_children(process: Popen[str]) -> list[int]:
    text = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    threads = text.parent.parent.glob("*/children") if text.exists() else ()
    return [int(word) for path in threads for word in path.read_text().split()]


def _on_device(*names: str) -> Callable[[Device, Popen[str]], list[int]]:
    return lambda device, process: [
        number for number, name in device.processes() if not names or name in names
    ]


# What is killed -> the processes.
VICTIMS: dict[str, Callable[[Device, Popen[str]], list[int]]] = {
    "compress-export": lambda device, process: [process.pid],
    "ssh": lambda device, process: _local_children(process),
    "shell on the device": _on_device("sh"),
    "sshd's session": _on_device("sshd", "sshd-session"),
    "everything on the device": _on_device(),
}
