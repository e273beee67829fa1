"""bench.pyz: this package as one file that any Python of a board can run."""

from __future__ import annotations

import zipfile
from pathlib import Path

ARCHIVE_NAME = "bench.pyz"
_SHEBANG = b"#!/usr/bin/env python3\n"
_MAIN = b"import sys\n\nfrom runtime_bench.__main__ import main\n\nsys.exit(main())\n"
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip file can hold


def write_archive(path: Path) -> Path:
    """Write the package as a zip application (PEP 441), executable, and return its path.

    The same sources give the same bytes: zipapp of the standard library would put in the times and
    modes of the files at hand. Entries are stored, since compressors differ between machines and
    unpacking would take longer than reading.
    """
    package = Path(__file__).resolve().parent
    with path.open("wb") as stream:
        stream.write(_SHEBANG)
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
            _add(archive, "__main__.py", _MAIN)
            for source in sorted(package.glob("*.py")):
                _add(archive, f"{package.name}/{source.name}", source.read_bytes())
    path.chmod(0o755)
    return path


def _add(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    entry = zipfile.ZipInfo(name, _EPOCH)
    entry.create_system = 3  # Unix, on whatever system this runs
    entry.external_attr = 0o644 << 16
    archive.writestr(entry, content)
