"""manifest.json of a model folder, and what else a folder needs to be of use on a board."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exporters.artifacts import Exported, SideFile, sha256_of
from exporters.codebook_file import CodebookFile
from exporters.errors import ExportError
from exporters.model_card import model_card
from exporters.profiles.select import profile_for

if TYPE_CHECKING:
    from boards import Board

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
EXAMPLE = "example.py"
SUMS = "SHA256SUMS"
SIGNATURE_SUFFIX = ".sig"


def write_manifest(
    folder: Path,
    files: Sequence[Exported],
    *,
    board: Board,
    model: str,
    classes: Sequence[str],
    input_shape: tuple[int, int, int],
    preprocessing: Mapping[str, Any],
    metric: str = "top-1",
    codebook: CodebookFile | None = None,
) -> Path:
    """Write manifest.json for files that lie in `folder`.

    Args:
        model: name of the model, such as "resnet20".
        input_shape: (C, H, W).
        preprocessing: resize, mean, std, scale, channel_order.
        metric: what accuracy means; anything but "top-1" can't be evaluated on the board.
        codebook: the codebook file in `folder`, if any.

    Raises:
        ExportError: a file is missing or isn't the one that was exported (by SHA-256).
    """
    present: list[Exported | SideFile | CodebookFile] = [
        *files,
        *(side for file in files for side in file.side_files),
        *([codebook] if codebook else []),
    ]
    for file in present:
        path = folder / file.path
        if not path.is_file():
            raise ExportError(f"{path} is missing; the manifest would name a file that isn't there")
        if sha256_of(path) != file.sha256:
            raise ExportError(f"{path} has changed since its export; export it again")
    channels, height, width = input_shape
    manifest = {
        "schema_version": SCHEMA_VERSION,
        **_addressee(board),
        "model": model,
        "classes": list(classes),
        "input": {"channels": channels, "height": height, "width": width},
        "preprocessing": dict(preprocessing),
        "metric": metric,
        "files": [file.to_json() for file in files],
        "codebook": None if codebook is None else codebook.to_json(),
    }
    path = folder / MANIFEST
    path.write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    return path


def read_manifest_files(folder: Path) -> tuple[Exported, ...]:
    """The entries of a model folder's manifest."""
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    return tuple(Exported.from_json(entry) for entry in manifest["files"])


def replace_files(folder: Path, files: Sequence[Exported], *, board: Board) -> None:
    """Let manifest.json and, where there is one, README.md of a finished folder name other files.

    All else in the manifest stays as it is.

    Args:
        files: those that lie in `folder` by now.
    """
    _rewrite(folder, {"files": [file.to_json() for file in files]}, files, board)


def address_to(folder: Path, board: Board) -> None:
    """Let a finished folder be that of another board, which takes the same files."""
    _rewrite(folder, _addressee(board), read_manifest_files(folder), board)


def _rewrite(
    folder: Path, changes: Mapping[str, Any], files: Sequence[Exported], board: Board
) -> None:
    path, readme = folder / MANIFEST, folder / "README.md"
    manifest = json.loads(path.read_text(encoding="utf-8")) | changes
    path.write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    if readme.is_file():
        entry = manifest.get("codebook")
        codebook = CodebookFile(**entry) if entry else None
        readme.write_text(model_card(files, board, manifest["model"], codebook), encoding="utf-8")


def write_bundle(
    folder: Path,
    files: Sequence[Exported],
    *,
    board: Board,
    model: str,
    classes: Sequence[str],
    input_shape: tuple[int, int, int],
    preprocessing: Mapping[str, Any],
    metric: str = "top-1",
    codebook: CodebookFile | None = None,
) -> tuple[Path, ...]:
    """Make `folder` complete: manifest.json, labels.txt, example.py and README.md.

    Arguments and errors are those of `write_manifest`. Returns the paths written.
    """
    manifest = write_manifest(
        folder,
        files,
        board=board,
        model=model,
        classes=classes,
        input_shape=input_shape,
        preprocessing=preprocessing,
        metric=metric,
        codebook=codebook,
    )
    labels = folder / "labels.txt"
    labels.write_text("".join(f"{name}\n" for name in classes), encoding="utf-8")
    example = folder / EXAMPLE
    shutil.copyfile(Path(__file__).with_name(EXAMPLE), example)
    readme = folder / "README.md"
    readme.write_text(model_card(files, board, model, codebook), encoding="utf-8")
    return manifest, labels, example, readme


def write_sums(folder: Path) -> Path:
    """Write SHA256SUMS, which `sha256sum --check` reads: every file but itself and signatures.

    To be called after anything in the folder has changed, and before it is signed.
    """
    names = sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and path.name != SUMS and path.suffix != SIGNATURE_SUFFIX
    )
    sums = folder / SUMS
    lines = (f"{sha256_of(folder / name)}  {name}\n" for name in names)
    sums.write_text("".join(lines), encoding="utf-8")
    return sums


def limits_of(board: Board) -> dict[str, float]:
    """A board's budgets, and what a microcontroller has at all: no choice, but as hard a limit."""
    limits = dict(board.budgets.limits())
    if board.kind == "mcu":
        limits |= {"ram_mib": board.memory.usable_mib, "flash_mib": board.storage.usable_mib}
    return limits


def _addressee(board: Board) -> dict[str, Any]:
    """What a manifest says of its board.

    Files of every precision run where those of integers do, so one entry a format says whether the
    bench can time them.
    """
    profiles = {format: profile_for(board, format) for format in board.formats}
    return {
        "board": {
            "id": board.id,
            "kind": board.kind,
            "arch": board.cpu.arch,
            "isa": list(board.cpu.isa),
            "cores": board.cpu.cores,
            "timed_elsewhere": {
                format: profile.name
                for format, profile in profiles.items()
                if not profile.benchable
            },
        },
        "budgets": limits_of(board),
    }
