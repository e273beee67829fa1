"""Check that a model folder's files are those that its SHA256SUMS and its manifest describe."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from runtime_bench.errors import ManifestError
from runtime_bench.manifest import CodebookRef, Manifest, ModelFile, inside

SUMS_NAME = "SHA256SUMS"
_SUM_LINE = re.compile(r"([0-9a-f]{64}) [ *](.+)")
_CHUNK_BYTES = 2**20
MOST_SUMS_BYTES = 2**20
_AGAIN = "copy the folder again"


def sha256_of(path: Path) -> str:
    """Hex sha256 of a file, read in chunks of 1 MiB."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        for chunk in iter(lambda: stream.read(_CHUNK_BYTES), b""):
            digest.update(chunk)
    return digest.hexdigest()


def verify_sums(folder: Path) -> None:
    """Check every file that SHA256SUMS names, in sha256sum's format; a folder may have none.

    Raises:
        ManifestError: one message that names every file that is missing or differs.
    """
    path = folder / SUMS_NAME
    if not path.is_file():
        return
    problems = []
    for number, line in enumerate(_lines(path), 1):
        found = _SUM_LINE.fullmatch(line)
        if found is None:
            raise ManifestError(f"{path}: line {number} is no sum: {line[:80]!r}; {_AGAIN}")
        digest, name = found.group(1), inside(found.group(2), str(path))
        if lack := _lack(folder, name):
            problems.append(lack)
        elif sha256_of(folder / name) != digest:
            problems.append(f"{name} has another sha256")
    if problems:
        raise ManifestError(
            f"{folder}: {'; '.join(problems)}. The files are not those of {SUMS_NAME}: {_AGAIN}"
        )


def _lines(path: Path) -> list[str]:
    """Lines of SHA256SUMS. Raises ManifestError where it is too large, or no text."""
    with path.open("rb") as file:
        content = file.read(MOST_SUMS_BYTES + 1)
    if len(content) > MOST_SUMS_BYTES:
        raise ManifestError(f"{path}: more than {MOST_SUMS_BYTES // 2**20} MiB; {_AGAIN}")
    try:
        return content.decode("utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ManifestError(f"{path}: not UTF-8 (byte {error.start}); {_AGAIN}") from error


def _lack(folder: Path, name: str) -> str | None:
    """Why the folder itself doesn't hold a file; None where it does."""
    path = folder / name
    if not path.is_file():
        return f"{name} is missing"
    inside_it = folder.resolve() in path.resolve().parents
    return None if inside_it else f"{name} is a link that leads out of the folder"


def verify_files(manifest: Manifest) -> None:
    """Check existence, size (side files counted) and sha256 of every file.

    Raises:
        ManifestError: one message that names every file that is missing or differs.
    """
    files: list[ModelFile | CodebookRef] = [*manifest.files]
    if manifest.codebook is not None:
        files.append(manifest.codebook)
    problems = [problem for file in files for problem in _problems(manifest.folder, file)]
    if problems:
        raise ManifestError(
            f"{manifest.folder}: {'; '.join(problems)}. "
            f"The files are not those that the manifest describes: {_AGAIN}"
        )


def _problems(folder: Path, file: ModelFile | CodebookRef) -> list[str]:
    expected: dict[str, str | None] = {file.path: file.sha256}
    if isinstance(file, ModelFile):
        expected.update({side.path: side.sha256 for side in file.side_files})
    lacks = [lack for name in expected if (lack := _lack(folder, name))]
    if lacks:
        return lacks
    size_bytes = sum((folder / name).stat().st_size for name in expected)
    if size_bytes != file.size_bytes:
        return [f"{file.path} has {size_bytes} bytes, the manifest says {file.size_bytes}"]
    found = {name: sha256_of(folder / name) for name, digest in expected.items() if digest}
    return [
        f"{name} has sha256 {digest[:12]}..., the manifest says {str(expected[name])[:12]}..."
        for name, digest in found.items()
        if digest != expected[name]
    ]
