"""README.md of a bundle: what its files are and what to do with them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from exporters.artifacts import Exported
from exporters.codebook_file import CodebookFile

if TYPE_CHECKING:
    from boards import Board

KIB = 1024


def model_card(
    files: Sequence[Exported], board: Board, model: str, codebook: CodebookFile | None
) -> str:
    """Return the text of README.md."""
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
