"""A real OpenSSH server on loopback, with a host key and authorized keys of its own."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

SSHD = shutil.which("sshd", path=f"{os.defpath}:/usr/sbin:/usr/local/sbin")
SEPARATION = Path("/run/sshd")  # where a server of root's wants an empty folder


def why_not() -> str:
    """Why no server can run here, or ""."""
    if SSHD is None or shutil.which("ssh-keygen") is None or shutil.which("ssh") is None:
        return "no OpenSSH server and client here"
    if os.geteuid() == 0:
        try:
            SEPARATION.mkdir(mode=0o755, exist_ok=True)
        except OSError as error:
            return f"sshd of root needs {SEPARATION}: {error.strerror}"
    return ""


@dataclass(frozen=True)
class Server:
    """A running server and a client's configuration, in which it is called `board`."""

    folder: Path
    port: int
    user: str
    process: subprocess.Popen[bytes]

    @property
    def config(self) -> Path:
        return self.folder / "config"

    def write_config(self, **changes: str) -> Path:
        """Write another configuration of `board`; returns its path."""
        options = {
            "HostName": "127.0.0.1",
            "Port": str(self.port),
            "User": self.user,
            "IdentityFile": f'"{self.folder / "user_key"}"',
            "IdentitiesOnly": "yes",
            "IdentityAgent": "none",
            "UserKnownHostsFile": f'"{self.folder / "known_hosts"}"',
            "GlobalKnownHostsFile": "/dev/null",
            **changes,
        }
        path = self.folder / ("config" if not changes else f"config_{'_'.join(changes)}")
        lines = [f"    {name} {value}\n" for name, value in options.items()]
        path.write_text("Host board\n" + "".join(lines))
        return path


@contextmanager
def serve(folder: Path, user: str | None = None) -> Iterator[Server]:
    """Run a server until the block ends; its files lie in `folder`.

    Args:
        user: who logs in, by default who runs this.
    """
    for name in ("host_key", "user_key", "other_key"):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True
        )
    shutil.copy(folder / "user_key.pub", folder / "authorized_keys")
    port = _free_port()
    (folder / "sshd_config").write_text(
        f"ListenAddress 127.0.0.1:{port}\nHostKey {folder}/host_key\n"
        f"AuthorizedKeysFile {folder}/authorized_keys\nPidFile none\nStrictModes no\n"
        "PasswordAuthentication no\nKbdInteractiveAuthentication no\nUsePAM no\n"
    )
    key = (folder / "host_key.pub").read_text().rsplit(" ", 1)[0]
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {key}\n")
    assert SSHD is not None
    with (folder / "sshd.log").open("wb") as log:
        command = [SSHD, "-D", "-e", "-f", str(folder / "sshd_config")]
        process = subprocess.Popen(command, stderr=log)
        try:
            _wait_for(port, process, folder / "sshd.log")
            server = Server(folder, port, user or getpass.getuser(), process)
            server.write_config()
            yield server
        finally:
            process.terminate()
            process.wait()


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(300):
        if process.poll() is not None:
            raise RuntimeError(f"sshd ended: {log.read_text()}")
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise RuntimeError(f"sshd does not answer: {log.read_text()}")
