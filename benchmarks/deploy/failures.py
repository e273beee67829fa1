"""What can go wrong: message, exit code, and what the device has afterwards."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.deploy.cuts import current_digest
from benchmarks.deploy.device import Device, deploy, full_disk
from compress_export.deploy.payload import read_payload

Row = dict[str, Any]


def provoke(
    device: Device,
    old: Path,
    new: Path,
    pythons: dict[str, str | None],
    say: Callable[[str], None],
) -> list[Row]:
    """Cause every failure once, on a device that has `old`.

    Args:
        pythons: on the device: "runtime" has numpy and a runtime, "numpy" only numpy, "none"
            neither; None where there is no such Python.
    """
    folder = device.home / "failures"
    at = f"board:{folder}"
    code, said = deploy(device.server.config, old, at)
    if code:
        raise RuntimeError(f"deploy ended with {code}: {said}")
    digest = read_payload(old).digest
    rows = []
    for what, config, words in _cases(device, new, at, pythons):
        code, said = deploy(config, *words)
        message = said.splitlines()[-1] if said else ""
        for path, name in ((new.parent, "DIR"), (device.home, "/home"), (device.server.folder, "")):
            message = message.replace(str(path), name)
        kept = current_digest(folder) == digest
        rows.append({"case": what, "code": code, "message": message, "old_version_there": kept})
        say(f"{rows[-1]}")
        if not kept:
            deploy(device.server.config, "--rollback", at)
    return rows


def _cases(
    device: Device, new: Path, at: str, pythons: dict[str, str | None]
) -> Iterator[tuple[str, Path, list[object]]]:
    """Yield what it is, the ssh configuration and the arguments."""
    server, config = device.server, device.server.config
    (server.folder / "empty").write_text("")
    nobody = server.write_config(UserKnownHostsFile=str(server.folder / "empty"))
    yield "unknown host key", nobody, [new, at]
    key = (server.folder / "other_key.pub").read_text().rsplit(" ", 1)[0]
    (server.folder / "changed").write_text(f"[127.0.0.1]:{server.port} {key}\n")
    changed = server.write_config(UserKnownHostsFile=str(server.folder / "changed"))
    yield "changed host key", changed, [new, at]
    stranger = server.write_config(IdentityFile=str(server.folder / "other_key"))
    yield "authentication failed", stranger, [new, at]
    yield "host unreachable", server.write_config(Port="1"), [new, at]
    yield "tampered file here", config, [_tampered(new), at]
    yield "no previous version", config, ["--rollback", at]
    if device.restricted:
        yield "folder not writable", config, [new, "board:/etc/model"]
    yield "folder of somebody else", config, [new, f"board:{_occupied(device)}"]
    with full_disk(device, size_kib=64) as small:
        if small is not None:
            yield "disk full", config, [new, f"board:{small}/m"]
    yield "tampered file on the device", config, ["--rollback", f"board:{_altered(device, new)}"]
    yield "no Python there", config, [new, at, "--bench", "--python", "python9"]
    if pythons["none"]:
        yield "no numpy there", config, [new, at, "--bench", "--python", pythons["none"]]
    if pythons["numpy"]:
        yield "no runtime there", config, [new, at, "--bench", "--python", pythons["numpy"]]


def _tampered(bundle: Path) -> Path:
    copy = bundle.parent / "tampered"
    shutil.copytree(bundle, copy)
    model = next(copy.glob("*.onnx"))
    content = bytearray(model.read_bytes())
    content[len(content) // 2] ^= 1
    model.write_bytes(content)
    return copy


def _occupied(device: Device) -> Path:
    folder = device.home / "somebody"
    folder.mkdir()
    (folder / "photo.jpg").touch()
    folder.chmod(0o777)
    return folder


def _altered(device: Device, bundle: Path) -> Path:
    """Deploy twice, then alter the previous version there."""
    folder = device.home / "altered"
    other = bundle.parent / "old"
    for one in (other, bundle):
        deploy(device.server.config, one, f"board:{folder}")
    model = next((folder / "previous").glob("*.onnx"))
    model.write_bytes(model.read_bytes()[:-1] + b"x")
    return folder
