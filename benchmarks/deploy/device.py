"""A "device" on loopback: a restricted user where root allows one, a server, a slow line."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.deploy.sshd import Server, serve

USER = "compress-device"


@dataclass(frozen=True)
class Device:
    """A server and what belongs to the device.

    Attributes:
        home: the folder that it may write to.
        restricted: it logs in as a user of its own without any rights.
    """

    server: Server
    home: Path
    restricted: bool

    def slow_line(self, bytes_per_s: int, counter: Path) -> Path:
        """Return a configuration whose connections carry so many bytes a second to the device;
        how many it were is written to `counter`."""
        relay = Path(__file__).with_name("relay.py")
        command = f"{sys.executable} {relay} 127.0.0.1 {self.server.port} {bytes_per_s} {counter}"
        return self.server.write_config(ProxyCommand=command)

    def processes(self) -> list[tuple[int, str]]:
        """Return process id and command name of all that the server has started by now."""
        listing = subprocess.run(
            ["ps", "-e", "-o", "pid=,ppid=,comm="], capture_output=True, text=True, check=True
        )
        rows = [line.split(None, 2) for line in listing.stdout.splitlines()]
        found = {self.server.process.pid: ""}
        for _ in rows:
            more = {int(p): name for p, parent, name in rows if int(parent) in found} | found
            if len(more) == len(found):
                break
            found = more
        del found[self.server.process.pid]
        return sorted(found.items())

    def wait_until_idle(self, timeout_s: float = 60) -> None:
        """Wait until nothing is running on the device."""
        until = time.monotonic() + timeout_s
        while self.processes():
            if time.monotonic() > until:
                raise RuntimeError(f"still running on the device: {self.processes()}")
            time.sleep(0.1)


@contextmanager
def loopback_device() -> Iterator[Device]:
    """Set a device up, and take it down when the block ends."""
    with TemporaryDirectory(prefix="device-", dir="/var/tmp") as name:
        folder = Path(name)
        folder.chmod(0o755)
        home = folder / "home"
        home.mkdir()
        user = _add_user(home)
        try:
            with serve(folder, user) as server:
                yield Device(server, home, user is not None)
        finally:
            if user is not None:
                subprocess.run(["userdel", user], check=False, capture_output=True)


def _add_user(home: Path) -> str | None:
    if os.geteuid() != 0 or shutil.which("useradd") is None:
        return None
    words = ["useradd", "--no-create-home", "--home-dir", str(home), "--shell", "/bin/sh"]
    subprocess.run([*words, "--password", "*", USER], check=True)
    shutil.chown(home, USER)
    return USER


@contextmanager
def full_disk(device: Device, size_kib: int) -> Iterator[Path | None]:
    """Mount a small file system on the device; None where that isn't permitted."""
    folder = device.home / "small"
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size_kib}k,mode=777", "tmpfs", str(folder)],
        check=False,
        capture_output=True,
    )
    try:
        yield None if done.returncode else folder
    finally:
        if done.returncode == 0:
            subprocess.run(["umount", str(folder)], check=True)


def start_deploy(config: Path, *words: object) -> subprocess.Popen[str]:
    """Start the command in a process group of its own."""
    command = [sys.executable, "-m", "compress_export", "deploy", "--ssh-config", str(config)]
    return subprocess.Popen(
        [*command, *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def deploy(config: Path, *words: object) -> tuple[int, str]:
    """Run the command; returns its exit code and what it said on standard error."""
    with start_deploy(config, *words) as process:
        said = process.communicate()[1]
    return process.returncode, said.strip()


def kill(process_ids: Sequence[int]) -> None:
    """kill -9, where they are still there."""
    for number in process_ids:
        with suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
