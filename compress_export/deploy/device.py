"""One conversation with one device: the user's own ssh, `device.sh` at its other end."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import IO

from compress_export.deploy.destination import Destination
from compress_export.deploy.errors import DeviceError
from compress_export.errors import UsageError
from compress_export.shown import printable

# Host keys are checked by the strictest setting there is, and nothing ever asks. The rest keeps a
# user's forwardings and commands out of the way, and finds out when a device has gone.
_OPTIONS = {
    "BatchMode": "yes",
    "StrictHostKeyChecking": "yes",
    "ClearAllForwardings": "yes",
    "RemoteCommand": "none",
    "ConnectTimeout": "20",
    "ServerAliveInterval": "15",
    "ServerAliveCountMax": "4",
}
_PREFIX = "compress-export: "
_MOST_LINE_BYTES = 2**16
_MOST_LINES = 2000
"""Before an answer: a login shell's greeting, no more."""
_MOST_REST_BYTES = 2**24

_running: set[subprocess.Popen[bytes]] = set()

# What ssh says -> what it means for the user. OpenSSH's messages aren't translated.
_SSH_MESSAGES = (
    (
        r"REMOTE HOST IDENTIFICATION HAS CHANGED",
        "the host key is another one than known_hosts has: an attacker, or a new system on the "
        "device; compare its fingerprint, then `ssh-keygen -R HOST` and connect once with ssh",
    ),
    (
        r"Host key verification failed|No .* host key is known",
        "the host key is not known; compare its fingerprint and connect once with ssh",
    ),
    (
        r"Permission denied \(|Too many authentication failures|no mutual signature",
        "authentication failed; nobody is asked for passwords here, so set up a key that "
        "`ssh -o BatchMode=yes HOST` works with",
    ),
    (
        r"Could not resolve|Connection refused|timed out|No route to host|unreachable|"
        r"Connection closed|Connection reset|Broken pipe|not responding",
        "cannot be reached",
    ),
    (
        r"Bad owner|Bad configuration|Can't open user config|terminating, \d+ bad configuration",
        "ssh does not accept its configuration",
    ),
)

# First word of an error answer of device.sh -> message.
_DEVICE_MESSAGES = {
    "no-space": "no space left on the device ({detail}); the version there is as it was",
    "not-writable": "the folder is not writable there ({detail})",
    "not-ours": "the folder holds other files; name an empty or a new one",
    "busy": "another deploy is at work in this folder",
    "damaged": "what arrived is not what was sent ({detail}); the version there is as it was",
    "altered": "files of this version were altered on the device ({detail}); deploy it again",
    "no-previous": "there is no previous version to go back to",
    "nothing-there": "nothing was deployed to this folder",
    "no-tool": "the device has no {detail}, which deploying needs",
    "no-python": "no such Python there; name one with --python",
    "no-bench": "the bundle there has no bench.pyz; make it again with this version",
    "broken": "{detail}",
}


@dataclass(frozen=True)
class Ssh:
    """The ssh to use.

    Attributes:
        program: name or path.
        config: a configuration file in place of the user's.
    """

    program: str = "ssh"
    config: Path | None = None

    def command(self, host: str) -> list[str]:
        """Return the arguments that run `device.sh` on a host."""
        options = [word for name, value in _OPTIONS.items() for word in ("-o", f"{name}={value}")]
        config = [] if self.config is None else ["-F", str(self.config)]
        return [
            self.program,
            "-T",
            *config,
            *options,
            "--",
            host,
            f"exec sh -c '{_device_program()}'",
        ]


class Conversation:
    """Lines to `device.sh`, answers from it; a context manager that ends ssh."""

    def __init__(self, ssh: Ssh, destination: Destination, action: str, *lines: str) -> None:
        """Start ssh and tell the device what to do.

        Args:
            action: deploy, rollback or bench.
            lines: its arguments, without line breaks.

        Raises:
            UsageError: there is no ssh here.
        """
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (closed by __exit__)
        try:
            self._process = subprocess.Popen(
                ssh.command(destination.host),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                bufsize=0,
            )
        except OSError as error:
            self._errors.close()
            raise UsageError(f"{ssh.program}: {error.strerror}; deploy needs OpenSSH") from None
        _running.add(self._process)
        assert self._process.stdin and self._process.stdout
        self._input, self._output = self._process.stdin, self._process.stdout
        self.send([f"{line}\n".encode() for line in (action, destination.path, *lines)])

    def send(self, chunks: Iterable[bytes], sent: Callable[[int], None] = lambda n: None) -> None:
        """Send bytes; `sent` is told how many, chunk by chunk. The device may end it early."""
        try:
            for chunk in chunks:
                view = memoryview(chunk)
                while view:
                    view = view[self._input.write(view) or 0 :]
                sent(len(chunk))
        except BrokenPipeError:
            pass  # the answer, or its absence, says why

    def close_input(self) -> None:
        """Say that nothing more comes."""
        self._input.close()

    def answer(self) -> tuple[str, str]:
        """Return the next answer: its first word and the rest.

        Raises:
            DeviceError: the device says what went wrong, or too much else, or the
                connection ended.
        """
        for _ in range(_MOST_LINES):
            line = self._output.readline(_MOST_LINE_BYTES)
            if not line:
                raise DeviceError(self._why_it_ended())
            text = line.decode(errors="replace").rstrip("\n")
            if not text.startswith(_PREFIX):
                continue  # what the login shell prints by itself
            word, _, rest = printable(text.removeprefix(_PREFIX)).partition(" ")
            if word == "error":
                raise DeviceError(_device_message(rest))
            return word, rest.strip()
        raise DeviceError(f"no answer among its first {_MOST_LINES} lines")

    def rest(self) -> bytes:
        """Return all that the device still says, to its end.

        Raises:
            DeviceError: it says more than figures are.
        """
        said = bytearray()
        while chunk := self._output.read(_MOST_LINE_BYTES):
            said += chunk
            if len(said) > _MOST_REST_BYTES:
                raise DeviceError(f"it sent more than {_MOST_REST_BYTES // 2**20} MiB of figures")
        return bytes(said)

    def errors(self) -> str:
        """Return the end of what came on standard error so far."""
        self._errors.seek(max(0, self._errors.seek(0, os.SEEK_END) - _MOST_LINE_BYTES))
        return self._errors.read().decode(errors="replace")

    def _why_it_ended(self) -> str:
        self._input.close()
        code = self._process.wait()
        said = self.errors()
        for pattern, meaning in _SSH_MESSAGES:
            if re.search(pattern, said):
                return f"{meaning} (ssh: {last_line(said)})"
        if code == 255:
            return f"the connection ended (ssh: {last_line(said)})"
        return f"its shell ended with code {code} ({last_line(said)})"

    def __enter__(self) -> Conversation:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._input.close()
        if kind is not None:
            self._process.kill()
        self._output.close()
        self._process.wait()
        _running.discard(self._process)
        self._errors.close()


def end_all() -> None:
    """End every ssh of this process; each device notices and keeps what it had."""
    for process in tuple(_running):
        process.kill()


@cache
def _device_program() -> str:
    return Path(__file__).with_name("device.sh").read_text(encoding="utf-8")


def _device_message(said: str) -> str:
    word, _, detail = said.partition(" ")
    return _DEVICE_MESSAGES.get(word, "{word} {detail}").format(word=word, detail=detail.strip())


def last_line(said: str) -> str:
    """Return the last line of what was said, without control characters."""
    lines: Sequence[str] = [line.strip() for line in said.splitlines() if line.strip()]
    return printable(lines[-1].removeprefix("ssh: ")) if lines else "no message"
