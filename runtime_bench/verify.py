"""Check that the files of a model folder are the ones its manifest describes."""

from __future__ import annotations

import hashlib
from pathlib import Path

from runtime_bench.errors import ManifestError
from runtime_bench.manifest import CodebookRef, Manifest, ModelFile

_CHUNK_BYTES = 2**20


def sha256_of(path: Path) -> str:
    """Hex sha256 of a file, read in chunks of 1 MiB."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        for chunk in iter(lambda: stream.read(_CHUNK_BYTES), b""):
            digest.update(chunk)
    return digest.hexdigest()


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
            "The files are not those that the manifest describes: copy the folder again."
        )


def _problems(folder: Path, file: ModelFile | CodebookRef) -> list[str]:
    expected: dict[str, str | None] = {file.path: file.sha256}
    if isinstance(file, ModelFile):
        expected.update({side.path: side.sha256 for side in file.side_files})
    missing = [name for name in expected if not (folder / name).is_file()]
    if missing:
        return [f"{name} is missing" for name in missing]
    size_bytes = sum((folder / name).stat().st_size for name in expected)
    if size_bytes != file.size_bytes:
        return [f"{file.path} has {size_bytes} bytes, the manifest says {file.size_bytes}"]
    found = {name: sha256_of(folder / name) for name, digest in expected.items() if digest}
    return [
        f"{name} has sha256 {digest[:12]}..., the manifest says {str(expected[name])[:12]}..."
        for name, digest in found.items()
        if digest != expected[name]
    ]
