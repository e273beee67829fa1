"""What is sent: the files of a bundle, checked first, as one tar stream."""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from compress_export.errors import UsageError
from compress_export.user_paths import refuse_unreachable
from runtime_bench.signature import SIGNATURE_NAME
from runtime_bench.verify import MOST_SUMS_BYTES, sha256_of

SUMS = "SHA256SUMS"
_CHUNK_BYTES = 2**16
_BLOCK_BYTES = 512


@dataclass(frozen=True)
class PayloadFile:
    """One file; `name` is its POSIX path relative to the bundle, `modified` seconds since 1970."""

    name: str
    size_bytes: int
    modified: int
    sha256: str


@dataclass(frozen=True)
class Payload:
    """A bundle whose files are those that its SHA256SUMS names."""

    folder: Path
    files: tuple[PayloadFile, ...]

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files)

    @property
    def sums(self) -> bytes:
        """All files in the format of `sha256sum`, SHA256SUMS and the signature among them."""
        return "".join(f"{file.sha256}  {file.name}\n" for file in self.files).encode()

    @property
    def digest(self) -> str:
        """Hex sha256 of `sums`, which stands for the whole bundle."""
        return hashlib.sha256(self.sums).hexdigest()

    def version_name(self, moment: datetime | None = None) -> str:
        """Return the name of the folder on the device: time of the upload and digest."""
        moment = moment or datetime.now(UTC)
        return f"{moment:%Y%m%dT%H%M%S.%fZ}-{self.digest}"

    def tar_chunks(self) -> Iterator[bytes]:
        """Yield a tar archive of `sums` and `bundle/...`, file by file, never whole in memory.

        Raises:
            UsageError: a file was cut short since it was checked.
        """
        yield _header("sums", len(self.sums), max(file.modified for file in self.files)) + _padded(
            self.sums
        )
        for file in self.files:
            yield _header(f"bundle/{file.name}", file.size_bytes, file.modified)
            yield from self._content(file)
        yield bytes(2 * _BLOCK_BYTES)

    def _content(self, file: PayloadFile) -> Iterator[bytes]:
        missing_bytes = file.size_bytes
        with (self.folder / file.name).open("rb") as stream:
            while missing_bytes:
                chunk = stream.read(min(_CHUNK_BYTES, missing_bytes))
                if not chunk:
                    raise UsageError(f"{self.folder / file.name}: cut short while it was sent")
                missing_bytes -= len(chunk)
                yield chunk
        yield bytes(-file.size_bytes % _BLOCK_BYTES)


def read_payload(given: Path) -> Payload:
    """Check a bundle against its SHA256SUMS; `given` is DIR/bundle, or DIR itself.

    Raises:
        UsageError: no bundle, a file that is missing, altered or not listed, a name that can't be
            listed.
    """
    refuse_unreachable("bundle", given / "manifest.json")
    folder = given / "bundle" if (given / "bundle" / "manifest.json").is_file() else given
    if not (folder / "manifest.json").is_file():
        raise UsageError(
            f"{given}: no bundle, which would hold manifest.json; give DIR or DIR/bundle"
        )
    listed = _read_sums(folder / SUMS)
    found = {name: _file(folder, name) for name in _names(folder)}
    problems = [f"{name} is missing" for name in listed if name not in found]
    problems += [
        f"{name} was altered"
        for name, digest in listed.items()
        if name in found and found[name].sha256 != digest
    ]
    problems += [
        f"{name} is not listed" for name in found if name not in (*listed, SUMS, SIGNATURE_NAME)
    ]
    if problems:
        raise UsageError(
            f"{folder}: {', '.join(problems)}: the files are not those of {SUMS}; "
            "make the bundle again, nothing was sent"
        )
    return Payload(folder, tuple(found.values()))


def _read_sums(path: Path) -> dict[str, str]:
    """Return name -> hex sha256 of a file in the format of `sha256sum`."""
    try:
        with path.open("rb") as file:
            lines = file.read(MOST_SUMS_BYTES).decode("utf-8").splitlines()
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}; a bundle has its sums there") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path}: not UTF-8, so no list of sums") from None
    entries = [(line[:64], line[64:66], line[66:]) for line in lines]
    if not entries or any(gap not in ("  ", " *") or not name for _, gap, name in entries):
        raise UsageError(f"{path}: not in the format of sha256sum")
    return {name: digest.lower() for digest, _, name in entries}


def _names(folder: Path) -> list[str]:
    paths = sorted(path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    names = [path.relative_to(folder).as_posix() for path in paths]
    for path, name in zip(paths, names, strict=True):
        if path.is_symlink() or not path.is_file():
            raise UsageError(
                f"{path}: a bundle holds plain files only; replace it with its content"
            )
        if "\\" in name or not name.isprintable():
            raise UsageError(
                f"{folder}: the name {name!r} can't stand in a list of sums; rename it"
            )
    return names


def _file(folder: Path, name: str) -> PayloadFile:
    path = folder / name
    status = path.stat()
    return PayloadFile(name, status.st_size, int(status.st_mtime), sha256_of(path))


def _header(name: str, size_bytes: int, modified: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = size_bytes, 0o644, modified
    return info.tobuf(tarfile.GNU_FORMAT, encoding="utf-8")


def _padded(content: bytes) -> bytes:
    return content + bytes(-len(content) % _BLOCK_BYTES)
