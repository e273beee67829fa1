"""README.md of a bundle: a model card in Hugging Face's form.

https://huggingface.co/docs/hub/model-cards: YAML metadata between two lines of dashes, then
Markdown. What was measured comes from the job's report (docs/report.md), once there is one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import yaml

from exporters.artifacts import Exported
from exporters.card_figures import evaluation, how_made, provenance, top1_results
from exporters.codebook_file import CodebookFile

if TYPE_CHECKING:
    from boards import Board

KIB = 1024
Report = Mapping[str, Any]


def complete_card(
    folder: Path, *, board: Board, report: Report, dataset_id: str | None = None
) -> Path:
    """Write README.md of a finished bundle with what its report says of it.

    Changes a file that SHA256SUMS names: `bundle.write_sums` comes after it.

    Args:
        report: what is in report.json, as plain JSON.
        dataset_id: what the images are called in public, None where they are the user's own.
    """
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    codebook = manifest.get("codebook")
    card = model_card(
        [Exported.from_json(entry) for entry in manifest["files"]],
        board,
        manifest["model"],
        CodebookFile(**codebook) if codebook else None,
        report=report,
        dataset_id=dataset_id,
        extras=[name for name in EXTRAS if (folder / name).is_file()],
    )
    path = folder / "README.md"
    path.write_text(card, encoding="utf-8")
    return path


def model_card(
    files: Sequence[Exported],
    board: Board,
    model: str,
    codebook: CodebookFile | None,
    *,
    report: Report | None = None,
    dataset_id: str | None = None,
    extras: Sequence[str] = (),
) -> str:
    """Return the text of README.md.

    Args:
        report: None where nothing was measured yet.
        extras: those of EXTRAS that are in the folder.
    """
    rows = "\n".join(
        f"| {f.path} | {f.precision} | {f.size_bytes / KIB:.0f} KiB | "
        f"{_tensor(f.input.dtype, f.input.shape, f.input.layout)} | "
        f"{_tensor(f.output.dtype, f.output.shape, None)} |"
        for f in files
    )
    text = CARD.format(
        model=model,
        board=board.name,
        data="the training data" if report is None else PurePath(report["data"]).name,
        made=NOT_MEASURED if report is None else how_made(report, files),
        evaluation=NOT_MEASURED if report is None else evaluation(report, files),
        provenance="" if report is None else provenance(report),
        rows=rows,
        command=_next_command(files, board),
        codebook="" if codebook is None else CODEBOOK.format(path=codebook.path),
        extras="".join(EXTRAS[name] for name in extras),
    )
    return f"---\n{_metadata(files, board, model, report, dataset_id)}---\n\n{text}"


def _metadata(
    files: Sequence[Exported],
    board: Board,
    model: str,
    report: Report | None,
    dataset_id: str | None,
) -> str:
    """Return the YAML block. A license is for those to state whose weights and data these are."""
    formats = list(dict.fromkeys(f.format for f in files))
    precisions = list(dict.fromkeys(f.precision for f in files))
    entries: dict[str, Any] = {
        "library_name": formats[0] if formats else "onnx",
        "pipeline_tag": "image-classification",
        "tags": [*formats, *precisions, "edge", "pruning", "compress-export", board.id],
    }
    if dataset_id is not None:
        entries["datasets"] = [dataset_id]
    if report is not None and (results := top1_results(report, files, dataset_id)):
        entries["metrics"] = ["accuracy"]
        entries["model-index"] = [{"name": f"{model} for {board.name}", "results": results}]
    dumped: str = yaml.safe_dump(entries, sort_keys=False, allow_unicode=True)
    return LICENSE + dumped


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


LICENSE = """# license: to be stated by whoever publishes these files, after that of the weights and
# of the data they were trained with, see https://huggingface.co/docs/hub/repositories-licenses
"""

NOT_MEASURED = "Nothing was measured yet.\n"

CODEBOOK = """- `{path}`: the network's tensors as codebooks, small to store and to send, which
  `runtime_bench.codebook_file.read_codebook_file` expands to arrays by name. No runtime reads it.
"""

# What a bundle may hold besides, and its line in the list of files.
EXTRAS = {
    "bench.pyz": (
        "- `bench.pyz`: measures these files on the machine at hand, with numpy and a runtime: "
        "`python bench.pyz`.\n"
    ),
    "FIRMWARE.md": (
        "- `model_data.h`, `model_data.cc`: the network as a C array; `FIRMWARE.md` says what the "
        "firmware needs.\n"
    ),
    "samples.npz": "- `samples.npz`: labelled images for `python bench.pyz --samples`.\n",
}

CARD = """# {model} for {board}

## What this is

An image classifier as files for {board}, made small by compress-export. The table of files below
has precisions and sizes; `labels.txt` names the classes.

## How it was made

{made}
## Intended use and limits

Made to sort images like those of {data} into the classes of `labels.txt`, on {board} or a machine
like it. It always names one of these classes, also for an image that shows none of them, and its
probabilities are not calibrated. Other images (another camera, light, crop or resize than that of
`manifest.json`) were not looked at, nor was fairness or resistance to attacks. What the data or the
original network had of errors and bias is still there, and pruning and quantization may hit rare
classes harder than the mean shows.

## Evaluation

{evaluation}
## How to run it

The next step on the board, from this folder:

```
{command}
```

Classify one image on any machine with numpy, Pillow and a runtime (onnxruntime, ai-edge-litert
or tflite-runtime):

```
python example.py IMAGE
```

ONNX files take normalised float32 images and return float32 logits, quantization happens inside.
A file whose input is uint8 takes pixels as they are and normalises them itself.
INT8 TFLite files take and return integers: `q = round(x / scale) + zero_point`.

## Files

| File | Precision | Size | Input | Output |
|---|---|---|---|---|
{rows}

- `manifest.json`: for each file its SHA-256, tensors (name, shape, layout, dtype, scale and zero
  point) and weight bytes; the preprocessing; the board's budgets.
- `labels.txt`: class names, one a line, in the order of the outputs.
{codebook}{extras}- `SHA256SUMS`: sums of all these files, for `sha256sum --check SHA256SUMS`.

## Provenance

SHA-256 of every model file is in `manifest.json`.
{provenance}"""
