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
    code, said = deploy(device.server.config, old, f"board:{folder}")
    if code:
        raise RuntimeError(f"deploy ended with {code}: {said}")
    digests = {read_payload(old).digest: "old", read_payload(new).digest: "new"}
    rows = []
    for what, config, there, words in _cases(device, old, new, folder, pythons):
        code, said = deploy(config, *words, f"board:{there}")
        message = said.splitlines()[-1] if said else ""
        for path, name in ((new.parent, "DIR"), (device.home, ""), (device.server.folder, "")):
            message = message.replace(str(path), name)
        has = digests[current_digest(there)] if (there / "current").exists() else "nothing"
        rows.append({"case": what, "code": code, "message": message, "device_has": has})
        say(f"{rows[-1]}")
        if has == "new" and there == folder:
            deploy(device.server.config, "--rollback", f"board:{folder}")
    return rows


def _cases(
    device: Device, old: Path, new: Path, folder: Path, pythons: dict[str, str | None]
) -> Iterator[tuple[str, Path, Path, list[object]]]:
    """Yield what it is, the ssh configuration, the folder on the device and the arguments."""
    server, config = device.server, device.server.config
    (server.folder / "empty").write_text("")
    nobody = server.write_config(UserKnownHostsFile=str(server.folder / "empty"))
    yield "unknown host key", nobody, folder, [new]
    key = (server.folder / "other_key.pub").read_text().rsplit(" ", 1)[0]
    (server.folder / "changed").write_text(f"[127.0.0.1]:{server.port} {key}\n")
    changed = server.write_config(UserKnownHostsFile=str(server.folder / "changed"))
    yield "changed host key", changed, folder, [new]
    stranger = server.write_config(IdentityFile=str(server.folder / "other_key"))
    yield "authentication failed", stranger, folder, [new]
    yield "host unreachable", server.write_config(Port="1"), folder, [new]
    yield "tampered file here", config, folder, [_tampered(new)]
    yield "no previous version", config, folder, ["--rollback"]
    if device.restricted:
        yield "folder not writable", config, Path("/etc/model"), [new]
    yield "folder of somebody else", config, _occupied(device), [new]
    room_kib = int(1.6 * read_payload(new).size_bytes / 1024)  # for one version, not for two
    with full_disk(device, room_kib) as small:
        if small is not None:
            deploy(config, old, f"board:{small}/m")
            yield "disk full", config, small / "m", [new]
    yield "tampered file on the device", config, _altered(device, old, new), ["--rollback"]
    yield "no Python there", config, folder, [new, "--bench", "--python", "python9"]
    if pythons["none"]:
        yield "no numpy there", config, folder, [new, "--bench", "--python", pythons["none"]]
    if pythons["numpy"]:
        yield "no runtime there", config, folder, [new, "--bench", "--python", pythons["numpy"]]


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


def _altered(device: Device, old: Path, new: Path) -> Path:
    """Deploy twice, then alter the previous version there."""
    folder = device.home / "altered"
    for one in (old, new):
        deploy(device.server.config, one, f"board:{folder}")
    model = next((folder / "previous").glob("*.onnx"))
    model.write_bytes(model.read_bytes()[:-1] + b"x")
    return folder
