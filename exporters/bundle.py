"""manifest.json of a model folder, and what else a folder needs to be of use on a board."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exporters.artifacts import Exported, sha256_of
from exporters.codebook_file import CodebookFile
from exporters.errors import ExportError

if TYPE_CHECKING:
    from boards import Board

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
EXAMPLE = "example.py"
KIB = 1024


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
    written: list[Exported | CodebookFile] = [*files, *([codebook] if codebook else [])]
    for file in written:
        path = folder / file.path
        if not path.is_file():
            raise ExportError(f"{path} is missing; the manifest would name a file that isn't there")
        if sha256_of(path) != file.sha256:
            raise ExportError(f"{path} has changed since its export; export it again")
    channels, height, width = input_shape
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "board": {
            "id": board.id,
            "kind": board.kind,
            "arch": board.cpu.arch,
            "isa": list(board.cpu.isa),
            "cores": board.cpu.cores,
        },
        "budgets": board.budgets.limits(),
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
    path, readme = folder / MANIFEST, folder / "README.md"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    manifest["files"] = [file.to_json() for file in files]
    path.write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    if readme.is_file():
        entry = manifest.get("codebook")
        codebook = CodebookFile(**entry) if entry else None
        readme.write_text(_readme(files, board, manifest["model"], codebook), encoding="utf-8")


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
    readme.write_text(_readme(files, board, model, codebook), encoding="utf-8")
    return manifest, labels, example, readme


def _readme(
    files: Sequence[Exported], board: Board, model: str, codebook: CodebookFile | None
) -> str:
    rows = "\n".join(
        f"| {f.path} | {f.precision} | {f.size_bytes / KIB:.0f} KiB | "
        f"{_tensor(f.input.dtype, f.input.shape, f.input.layout)} | "
        f"{_tensor(f.output.dtype, f.output.shape, None)} |"
        for f in files
    )
    return README.format(
        model=model,
        board=board.name,
        rows=rows,
        command=_next_command(files, board),
        codebook="" if codebook is None else CODEBOOK.format(path=codebook.path),
    )


def _next_command(files: Sequence[Exported], board: Board) -> str:
    """The board's command with the smallest file of each format in its place."""
    command = board.next_command
    for format in ("onnx", "tflite"):
        paths = [f.path for f in sorted(files, key=lambda f: f.size_bytes) if f.format == format]
        command = command.replace(f"{{{format}}}", paths[0] if paths else f"MODEL.{format}")
    return command.strip()


def _tensor(dtype: str, shape: Sequence[int], layout: str | None) -> str:
    sizes = ", ".join("N" if size == -1 else str(size) for size in shape)
    return f"{dtype} [{sizes}]" + (f" {layout}" if layout else "")


CODEBOOK = """- `{path}`: the network's tensors as codebooks, small to store and to send, which
  `runtime_bench.codebook_file.read_codebook_file` expands to arrays by name. No runtime reads it.
"""

README = """# {model} for {board}

| File | Precision | Size | Input | Output |
|---|---|---|---|---|
{rows}

The next step on the board, from this folder:

```
{command}
```

Classify one image on any machine with numpy, Pillow and a runtime (onnxruntime, ai-edge-litert
or tflite-runtime):

```
python example.py IMAGE
```

- `manifest.json`: for each file its SHA-256, tensors (name, shape, layout, dtype, scale and zero
  point) and weight bytes; the preprocessing; the board's budgets.
- `labels.txt`: class names, one a line, in the order of the outputs.
{codebook}
ONNX files take normalised float32 images and return float32 logits, quantization happens inside.
A file whose input is uint8 takes pixels as they are and normalises them itself.
INT8 TFLite files take and return integers: `q = round(x / scale) + zero_point`.
"""
